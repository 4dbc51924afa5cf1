"""When the ASGI middleware stores a session, and what of that its client is told."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import AsyncSessionManager
from msm_fast.integrations.asgi import SessionMiddleware
from tests.unit.integrations.asgi.browser import BODY_END, Browser, Handler, Message, app_of, count


def test_the_session_is_stored_before_the_headers_leave(
    manager: AsyncSessionManager, loop: asyncio.AbstractEventLoop
) -> None:
    seen: list[int] = []

    class Watching(Browser):
        async def _send(self, message: Message) -> None:
            await super()._send(message)
            if message["type"] == "http.response.start":
                stored = await manager.load(self.cookie or "")
                assert stored is not None
                seen.append(stored["n"])

    Watching(SessionMiddleware(app_of(count), manager), loop).send()
    assert seen == [1]


def test_what_is_written_after_the_headers_left_is_stored_at_the_end(browse: Callable[..., Browser]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        count(scope["session"], scope)
        await send({"type": "http.response.start", "status": 200})
        await send(BODY_END)
        scope["session"]["late"] = True  # a background task

    browser = browse(app)
    browser.send()
    late: list[Any] = []
    browser.app = browse(app_of(lambda session, scope: late.append(session.get("late")))).app
    browser.send()
    assert late == [True]


def test_a_session_that_begins_after_the_headers_left_is_warned_about(
    browse: Callable[..., Browser], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        scope["session"]["n"] = 1
        await send(BODY_END)

    browse(app).send()
    assert [record.getMessage() for record in caplog.records] == [
        "a session got its id after the headers had left; the client will not know it"
    ]


def test_and_so_is_one_that_the_application_saves_then_but_once(
    browse: Callable[..., Browser], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        for _ in range(2):
            count(scope["session"], scope)
            await scope["session"].save()

    browse(app).connect({"type": "websocket", "path": "/", "scheme": "ws"})
    assert [record.getMessage() for record in caplog.records] == [
        "a session got its id after the headers had left; the client will not know it"
    ]


def test_but_not_one_whose_id_the_client_came_with(
    browse: Callable[..., Browser], caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})
        count(scope["session"], scope)
        await send(BODY_END)

    browser = browse(app_of(count), max_age=600)
    browser.send()
    browser.app = browse(app, max_age=600).app
    browser.send()
    assert caplog.records == []


def test_a_request_that_raises_stores_nothing(browse: Callable[..., Browser]) -> None:
    def fail(session: Any, scope: Any) -> None:
        session["n"] = 100
        raise RuntimeError("broken")

    browser = browse(app_of(count))
    browser.send()
    app, browser.app = browser.app, browse(app_of(fail)).app
    with pytest.raises(RuntimeError, match="broken"):
        browser.send()
    browser.app = app
    assert browser.send()[1]["body"] == b"2"


@pytest.mark.parametrize("handler", [count, lambda session, scope: "unused"], ids=["used", "unused"])
def test_a_request_leaves_nothing_to_the_garbage_collector(
    manager: AsyncSessionManager, loop: asyncio.AbstractEventLoop, handler: Handler
) -> None:
    """What it would cost with thousands of requests per second is more than the session does."""

    class Connection:
        """What a server has of a request: who sends has its scope."""

        def __init__(self) -> None:
            self.scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": []}

        async def receive(self) -> Message:
            raise AssertionError

        async def send(self, message: Message) -> None:
            pass

    middleware = SessionMiddleware(app_of(handler), manager)
    gc.collect()
    gc.disable()
    try:
        connection = Connection()
        loop.run_until_complete(middleware(connection.scope, connection.receive, connection.send))
        is_gone = weakref.ref(connection)
        del connection
        assert is_gone() is None
    finally:
        gc.enable()
