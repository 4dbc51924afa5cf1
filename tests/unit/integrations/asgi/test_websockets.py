"""Sessions over websockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from msm_fast import AsyncSessionManager, SessionId, SessionUnavailable
from tests.unit.integrations.asgi.browser import App, Browser, Message, app_of, count
from tests.unit.integrations.asgi.failing import Failing


def websocket(*messages: Message) -> App:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        count(scope["session"], scope)
        for message in messages:
            await send(message)

    return app


def test_a_websocket_gets_its_cookie_when_it_is_accepted(browse: Callable[..., Browser]) -> None:
    browser = browse(websocket({"type": "websocket.accept"}))
    browser.connect({"type": "websocket", "path": "/", "scheme": "wss"})
    assert "Secure" in (browser.header("set-cookie") or "")
    browser.app = browse(app_of(count)).app
    assert browser.send()[1]["body"] == b"2"


def test_a_websocket_can_store_its_session_while_it_is_open(
    browse: Callable[..., Browser], manager: AsyncSessionManager
) -> None:
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        count(scope["session"], scope)
        await send({"type": "websocket.accept"})
        count(scope["session"], scope)
        await scope["session"].save()
        stored = await manager.load(scope["session"].id)
        assert stored is not None
        seen.append(stored["n"])

    browse(app).connect({"type": "websocket", "path": "/", "scheme": "ws"})
    assert seen == [2]


class ClientHasGoneError(Exception):
    """What frameworks raise in an application that waits for a message of a client that has gone."""


@pytest.mark.parametrize("message", ["websocket.receive", "websocket.disconnect"])
def test_a_websocket_whose_client_goes_away_stores_its_session_but_not_one_that_fails(
    browse: Callable[..., Browser],
    manager: AsyncSessionManager,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["session"]["n"] = 1
        await send({"type": "websocket.accept"})
        scope["session"]["n"] = 2
        await receive()
        raise ClientHasGoneError

    async def receive(_: Browser) -> Message:
        return {"type": message}

    monkeypatch.setattr(Browser, "_receive", receive)
    browser = browse(app)
    with pytest.raises(ClientHasGoneError):
        browser.connect({"type": "websocket", "path": "/", "scheme": "ws"})
    stored = loop.run_until_complete(manager.load(browser.cookie or ""))
    assert stored == {"n": 2 if message == "websocket.disconnect" else 1}


def test_a_websocket_that_learns_by_sending_that_its_client_has_gone_stores_its_session_too(
    browse: Callable[..., Browser],
    manager: AsyncSessionManager,
    loop: asyncio.AbstractEventLoop,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        count(scope["session"], scope)
        try:
            await send({"type": "websocket.send", "text": "news"})
        except OSError as error:
            raise ClientHasGoneError from error

    browser = browse(websocket({"type": "websocket.accept"}))
    browser.connect({"type": "websocket", "path": "/", "scheme": "ws"})
    keep = Browser._send

    async def send(self: Browser, message: Message) -> None:
        if message["type"] == "websocket.send":
            raise OSError
        await keep(self, message)

    monkeypatch.setattr(Browser, "_send", send)
    browser.app = browse(app).app
    with pytest.raises(ClientHasGoneError):
        browser.connect({"type": "websocket", "path": "/", "scheme": "ws"})
    assert loop.run_until_complete(manager.load(browser.cookie or "")) == {"n": 2}


def test_a_websocket_whose_session_is_not_available_is_closed(
    browse: Callable[..., Browser], failing: type[Failing]
) -> None:
    browser = browse(websocket({"type": "websocket.accept"}, {"type": "websocket.send", "text": "hello"}))
    browser.cookie = str(SessionId.generate())
    browser.connect({"type": "websocket", "path": "/", "scheme": "ws"})
    assert browser.sent == [{"type": "websocket.close", "code": 1013}]


def test_before_it_is_accepted_the_answer_is_503_if_the_server_can_give_one(
    browse: Callable[..., Browser], failing: type[Failing]
) -> None:
    browser = browse(websocket({"type": "websocket.accept"}, {"type": "websocket.send", "text": "hello"}))
    extensions = {"websocket.http.response": {}}
    browser.connect({"type": "websocket", "path": "/", "scheme": "ws", "extensions": extensions})
    assert [m["type"] for m in browser.sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert (browser.status, browser.header("retry-after")) == (503, "1")


class ClosedWebsocketError(Exception):
    """What frameworks make of an OSError of the server's: of a message to a client that has gone."""


@pytest.mark.parametrize("failing", ["save"], indirect=True)
@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
@pytest.mark.parametrize("is_in_framework", [False, True])
def test_an_application_that_only_sends_hears_that_its_websocket_was_refused(
    browse: Callable[..., Browser], failing: type[Failing], extensions: Message, is_in_framework: bool
) -> None:
    heard: list[OSError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        count(scope["session"], scope)
        await send({"type": "websocket.accept"})
        try:
            for _ in range(3):
                await send({"type": "websocket.send", "text": "tick"})
        except OSError as error:
            heard.append(error)
            if is_in_framework:
                raise ClosedWebsocketError from error
            raise

    browse(app).connect({"type": "websocket", "path": "/", "scheme": "ws", "extensions": extensions})
    assert len(heard) == 1


@pytest.mark.parametrize("failing", ["save"], indirect=True)
def test_so_do_tasks_of_a_group_which_is_no_error_of_the_application(
    browse: Callable[..., Browser], failing: type[Failing]
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def tick() -> None:
            await send({"type": "websocket.send", "text": "tick"})

        async def tick_by_framework() -> None:
            try:
                await tick()
            except OSError as error:
                raise ClosedWebsocketError from error

        count(scope["session"], scope)
        await send({"type": "websocket.accept"})
        async with anyio.create_task_group() as group:
            for task in (tick, tick_by_framework, scope["session"].save):
                group.start_soon(task)

    browser = browse(app)
    browser.connect({"type": "websocket", "path": "/", "scheme": "ws"})
    assert [m["type"] for m in browser.sent] == ["websocket.close"]


@pytest.mark.parametrize("failing", ["nothing"], indirect=True)
def test_a_websocket_that_was_answered_by_the_application_is_not_closed_as_if_it_were_open(
    browse: Callable[..., Browser], failing: type[Failing], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})
        count(scope["session"], scope)
        monkeypatch.setattr(failing, "fails_to", "save")

    browser = browse(app)
    extensions = {"websocket.http.response": {}}
    with pytest.raises(SessionUnavailable):
        browser.connect({"type": "websocket", "path": "/", "scheme": "ws", "extensions": extensions})
    assert [m["type"] for m in browser.sent] == ["websocket.http.response.start", "websocket.http.response.body"]


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
@pytest.mark.parametrize("failing", ["nothing"], indirect=True)
def test_a_websocket_that_the_application_has_closed_is_not_closed_again(
    browse: Callable[..., Browser], failing: type[Failing], monkeypatch: pytest.MonkeyPatch, extensions: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        count(scope["session"], scope)
        await send({"type": "websocket.close"})
        monkeypatch.setattr(failing, "fails_to", "save")

    browser = browse(app)
    with pytest.raises(SessionUnavailable):
        browser.connect({"type": "websocket", "path": "/", "scheme": "ws", "extensions": extensions})
    assert [m["type"] for m in browser.sent] == ["websocket.accept", "websocket.close"]


@pytest.mark.parametrize("extensions", [{}, {"websocket.http.response": {}}])
@pytest.mark.parametrize("failing", ["load"], indirect=True)
def test_a_websocket_that_the_application_has_refused_itself_is_not_refused_again(
    browse: Callable[..., Browser], failing: type[Failing], extensions: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            count(scope["session"], scope)
        except SessionUnavailable:
            await send({"type": "websocket.close"})
            raise

    browser = browse(app)
    with pytest.raises(SessionUnavailable):
        browser.connect({"type": "websocket", "path": "/", "scheme": "ws", "extensions": extensions})
    assert [m["type"] for m in browser.sent] == ["websocket.close"]
