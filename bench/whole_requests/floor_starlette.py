"""The floor as a middleware of Starlette's."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bench.whole_requests.floor import BareProtocol, Sessions, question

COOKIE = "session"


class FloorSession(dict[str, Any]):
    """A session that notes that it was changed, as the application here changes it."""

    is_modified = False

    def __setitem__(self, name: str, value: Any) -> None:
        self.is_modified = True
        super().__setitem__(name, value)

    def update(self, *args: Any, **attributes: Any) -> None:
        self.is_modified = True
        super().update(*args, **attributes)


class FloorMiddleware:
    """Loads a session before the application runs, and saves it before the response starts."""

    def __init__(self, app: ASGIApp, node: tuple[str, int]) -> None:
        self._app, self._node = app, node
        self._sessions = Sessions()
        self._connecting: asyncio.Future[BareProtocol] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._connecting is None:
            self._connecting = asyncio.ensure_future(self._connect())
        protocol = await self._connecting
        known = HTTPConnection(scope).cookies.get(COOKIE)
        session_id = known or secrets.token_hex(16)
        if known is not None:
            await protocol.ask(question(session_id))
        session = scope["session"] = FloorSession(self._sessions.get(session_id))

        async def send_saved(message: Message) -> None:
            if message["type"] == "http.response.start" and session.is_modified:
                await protocol.ask(self._sessions.put(session_id, session))
                if known is None:
                    MutableHeaders(scope=message).append("Set-Cookie", f"{COOKIE}={session_id}; path=/")
            await send(message)

        await self._app(scope, receive, send_saved)

    async def _connect(self) -> BareProtocol:
        _, protocol = await asyncio.get_running_loop().create_connection(BareProtocol, *self._node)
        return protocol
