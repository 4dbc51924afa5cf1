"""A client of ASGI applications that speaks their own messages, and small applications for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http.cookies import SimpleCookie
from typing import Any

Message = dict[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]
Handler = Callable[[Any, Any], Any]
BODY_END = {"type": "http.response.body", "body": b""}


class Browser:
    """Keeps the cookie as a browser does, and all that was sent."""

    def __init__(self, app: App, loop: asyncio.AbstractEventLoop) -> None:
        self.app = app
        self.loop = loop
        self.cookie: str | None = None
        self.sent: list[Message] = []

    def send(self, method: str = "GET", path: str = "/", scheme: str = "http") -> list[Message]:
        scope = {"type": "http", "method": method, "path": path, "scheme": scheme}
        return self.connect(scope)

    def connect(self, scope: dict[str, Any]) -> list[Message]:
        self.sent = []
        cookie = [] if self.cookie is None else [(b"cookie", b"session=" + self.cookie.encode())]
        self.loop.run_until_complete(self.app({**scope, "headers": cookie}, self._receive, self._send))
        return self.sent

    def header(self, name: str) -> str | None:
        """Return what the first message has under name."""
        values = [v.decode() for k, v in self.sent[0].get("headers", ()) if k == name.encode()]
        return values[0] if values else None

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    async def _receive(self) -> Message:
        raise AssertionError("nothing is to be received")

    async def _send(self, message: Message) -> None:
        await asyncio.sleep(0)
        self.sent.append(dict(message))
        for morsel in SimpleCookie(self.header("set-cookie") or "").values():
            self.cookie = morsel.value or None


PLAIN = (b"content-type", b"text/plain")


def app_of(handler: Handler, *headers: tuple[bytes, bytes]) -> App:
    """Return an application that calls handler with the session and the scope, then answers what that returns.

    headers: of its answers, besides the type.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = str(handler(scope["session"], scope)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [PLAIN, *headers]})
        await send({"type": "http.response.body", "body": body})

    return app


def count(session: Any, scope: Any) -> int:
    session["n"] = session.get("n", 0) + 1
    return int(session["n"])
