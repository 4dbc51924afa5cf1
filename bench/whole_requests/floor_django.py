"""The floor as a session engine of Django's, under Django's own middleware."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends.base import SessionBase

from bench.whole_requests.contenders import Configuration
from bench.whole_requests.floor import BareSocket, Sessions, question

SESSIONS = Sessions()
SOCKET = BareSocket(Configuration.of_this_process().node)


class SessionStore(SessionBase):
    """What Django asks of an engine."""

    def load(self) -> dict[str, Any]:
        SOCKET.ask(question(self.session_key))
        return SESSIONS.get(self.session_key)

    def exists(self, session_key: str) -> bool:
        return session_key in SESSIONS

    def create(self) -> None:
        self._session_key = self._get_new_session_key()
        self.save()
        self.modified = True

    def save(self, must_create: bool = False) -> None:
        if self.session_key is None:
            self.create()
        else:
            SOCKET.ask(SESSIONS.put(self.session_key, self._get_session(no_load=must_create)))

    def delete(self, session_key: str | None = None) -> None:
        SESSIONS.drop(session_key or self.session_key)
