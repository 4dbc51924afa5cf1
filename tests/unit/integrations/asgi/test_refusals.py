"""ASGI applications whose sessions are not available."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from msm_fast import AsyncSessionManager, CorruptRecord, LockTimeout, SessionId, SessionUnavailable
from msm_fast.integrations.asgi import SessionMiddleware
from msm_fast.request_scope import AsyncRequestScope
from tests.unit.integrations.asgi.browser import Browser, app_of, count
from tests.unit.integrations.asgi.failing import Failing


@pytest.mark.parametrize("error", [SessionUnavailable("no node"), CorruptRecord("bad", 0), LockTimeout("late")])
def test_when_the_store_fails_the_answer_is_503_and_the_cookie_stays(
    browse: Callable[..., Browser], failing: type[Failing], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(Failing, "error", error)
    browser = browse(app_of(count))
    browser.cookie = kept = str(SessionId.generate())
    assert [message["type"] for message in browser.send()] == ["http.response.start", "http.response.body"]
    assert (browser.status, browser.header("retry-after"), browser.header("set-cookie")) == (503, "1", None)
    assert browser.cookie == kept


async def look(scope: Any) -> None:
    scope["session"]["seen"] = True
    await scope["session"].save()


def test_so_is_the_answer_when_tasks_of_a_group_look_at_it(
    browse: Callable[..., Browser], failing: type[Failing]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async with anyio.create_task_group() as outer, anyio.create_task_group() as inner:
            outer.start_soon(look, scope)
            inner.start_soon(look, scope)

    browser = browse(app)
    browser.cookie = str(SessionId.generate())
    browser.send()
    assert (browser.status, browser.header("retry-after")) == (503, "1")


def test_but_not_when_another_of_them_fails_for_another_reason(
    browse: Callable[..., Browser], failing: type[Failing]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def fail() -> None:
            raise RuntimeError("broken")

        async with anyio.create_task_group() as group:
            group.start_soon(look, scope)
            group.start_soon(fail)

    with pytest.raises(Exception, match="unhandled errors in a TaskGroup") as raised:
        browse(app).send()
    group: Any = raised.value  # ExceptionGroup came with Python 3.11
    assert any(isinstance(error, RuntimeError) for error in group.exceptions)


def test_but_it_is_told_the_new_id_that_the_application_has_stored_before(
    browse: Callable[..., Browser], manager: AsyncSessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def log_in(scope: Any, receive: Any, send: Any) -> None:
        scope["session"].rotate_id()
        await scope["session"].save()
        with monkeypatch.context() as patch:
            patch.setattr(manager, "_save", fail)
            await send({"type": "http.response.start", "status": 200})

    async def fail(*_: Any) -> None:
        raise SessionUnavailable("no node")

    browser = browse(app_of(count))
    browser.send()
    app, browser.app = browser.app, browse(log_in).app
    browser.send()
    assert (browser.status, browser.header("vary"), browser.header("cache-control")) == (503, "Cookie", "no-store")
    browser.app = app
    assert browser.send()[1]["body"] == b"2"


def test_a_request_that_does_not_need_the_session_is_served_all_the_same(
    browse: Callable[..., Browser], failing: type[Failing]
) -> None:
    browser = browse(app_of(lambda session, scope: "hello"))
    browser.cookie = str(SessionId.generate())
    assert browser.send()[1]["body"] == b"hello"


def test_a_request_that_is_cancelled_leaves_no_lock(loop: asyncio.AbstractEventLoop) -> None:
    let_go: list[bool] = []

    class Watching(AsyncRequestScope):
        def abandon(self) -> None:
            let_go.append(True)
            super().abandon()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise asyncio.CancelledError

    async def serve() -> None:
        manager = AsyncSessionManager()
        manager.request = lambda *request: Watching(manager, *request)  # type: ignore
        with pytest.raises(asyncio.CancelledError):
            await SessionMiddleware(app, manager)(
                {"type": "http", "method": "GET", "path": "/", "headers": []},
                None,
                None,  # type: ignore[arg-type]
            )
        await manager.close()

    loop.run_until_complete(serve())
    assert let_go == [True]
