from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msm_fast import AsyncSessionManager, SessionUnavailable
from msm_fast.integrations.asgi import SessionMiddleware
from tests.unit.integrations.asgi.browser import App, Browser
from tests.unit.integrations.asgi.failing import Failing


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def manager(loop: asyncio.AbstractEventLoop) -> Iterator[AsyncSessionManager]:
    manager = AsyncSessionManager()
    yield manager
    loop.run_until_complete(manager.close())


@pytest.fixture
def browse(manager: AsyncSessionManager, loop: asyncio.AbstractEventLoop) -> Callable[..., Browser]:
    """Return a function that makes a browser in front of the middleware around an application."""

    def make(app: App, **options: Any) -> Browser:
        return Browser(SessionMiddleware(app, manager, **options), loop)

    return make


@pytest.fixture(params=["load", "save"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    monkeypatch.setattr(Failing, "fails_to", request.param)
    monkeypatch.setattr(Failing, "error", SessionUnavailable("no node"), raising=False)
    monkeypatch.setattr("msm_fast.async_manager.AsyncRequestScope", Failing)
    return Failing
