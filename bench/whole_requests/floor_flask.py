"""The floor as a session interface of Flask's."""

from __future__ import annotations

import secrets
from typing import Any

from flask import Flask, Request, Response
from flask.sessions import SecureCookieSession, SessionInterface, SessionMixin

from bench.whole_requests.floor import BareSocket, Sessions, question


class FloorSession(SecureCookieSession):
    """Flask's own session, which notes that it was changed; with an id."""

    def __init__(self, session_id: str, found: dict[str, Any]) -> None:
        super().__init__(found)
        self.session_id = session_id
        self.is_new = not found


class FloorInterface(SessionInterface):
    """What Flask asks of an interface."""

    def __init__(self, node: tuple[str, int]) -> None:
        self._sessions, self._socket = Sessions(), BareSocket(node)

    def open_session(self, app: Flask, request: Request) -> FloorSession:
        session_id = request.cookies.get(self.get_cookie_name(app))
        if session_id is None:
            return FloorSession(secrets.token_hex(16), {})
        self._socket.ask(question(session_id))
        return FloorSession(session_id, self._sessions.get(session_id))

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        assert isinstance(session, FloorSession)
        if session.accessed:
            response.vary.add("Cookie")
        if session.modified:
            self._socket.ask(self._sessions.put(session.session_id, session))
            if session.is_new:
                response.set_cookie(self.get_cookie_name(app), session.session_id)
