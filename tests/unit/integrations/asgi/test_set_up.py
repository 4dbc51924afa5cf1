"""How the ASGI middleware is set up, and what it has of Starlette's own."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import Any, NamedTuple

import pytest

from msm_fast import AsyncSessionManager, ConfigurationError, SessionId, SessionManager, Settings
from msm_fast.integrations.asgi import SessionMiddleware
from msm_fast.integrations.cookies import CookieSettings
from tests.unit.integrations.asgi.browser import Browser, Message, app_of, count


def test_the_cookie_is_described_in_starlettes_words(browse: Callable[..., Browser]) -> None:
    browser = browse(
        app_of(count), max_age=600, path="/shop", same_site="strict", https_only=True, domain="example.org"
    )
    browser.send()
    assert browser.header("set-cookie") == (
        f"session={browser.cookie}; Domain=example.org; Path=/shop; Max-Age=600; Secure; HttpOnly; SameSite=Strict"
    )
    browser.send()
    assert "Max-Age=600" in (browser.header("set-cookie") or "")  # it counts from the last request


def test_a_secret_key_may_stay_where_starlettes_own_middleware_had_one(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(count), secret_key="of the cookie that held the session")
    browser.send()
    assert browser.header("set-cookie") == f"session={browser.cookie}; Path=/; HttpOnly; SameSite=Lax"
    assert SessionId.parse(browser.cookie) is not None


def test_the_application_may_be_named_as_with_starlettes_own_middleware(
    manager: AsyncSessionManager, loop: asyncio.AbstractEventLoop
) -> None:
    browser = Browser(SessionMiddleware(app=app_of(count), manager=manager), loop)
    assert [browser.send()[1]["body"] for _ in range(2)] == [b"1", b"2"]
    with pytest.raises(TypeError, match="'app'"):
        SessionMiddleware(manager=manager)


def test_or_all_in_one(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(count), cookie=CookieSettings(name="sid"))
    browser.send()
    assert (browser.header("set-cookie") or "").startswith("sid=")


@pytest.mark.parametrize(
    ("wrong", "accepted"),
    [
        ({"manager": SessionManager()}, "an AsyncSessionManager"),
        ({"manager": "n1:10.0.0.1:11211"}, "an AsyncSessionManager"),
        ({"cookie": {"name": "sid"}}, "a CookieSettings"),
        ({"cookie": CookieSettings(), "session_cookie": "sid", "max_age": 60}, "either cookie, or"),
        ({"cookie": CookieSettings(), "domain": "example.org"}, "either cookie, or"),
        ({"same_site": None}, "'lax', 'strict' or 'none'"),
        ({"same_site": "laxx"}, "'lax', 'strict' or 'none'"),
        ({"same_site": True}, "'lax', 'strict' or 'none'"),
        ({"max_age": "600"}, "cookie max_age"),
        ({"max_age": 1.5}, "cookie max_age"),
        ({"https_only": "yes"}, "True or False"),
        ({"path": None}, "cookie path"),
    ],
)
def test_a_wrong_argument_is_refused_at_once(wrong: dict[str, Any], accepted: str) -> None:
    with pytest.raises(ConfigurationError, match=accepted):
        SessionMiddleware(app_of(count), **wrong)


def test_a_secret_where_the_manager_belongs_is_refused_and_not_shown() -> None:
    with pytest.raises(ConfigurationError, match="an AsyncSessionManager") as raised:
        SessionMiddleware(app_of(count), "correct-horse")  # type: ignore[arg-type]
    assert "correct-horse" not in str(raised.value)


def test_without_a_manager_it_makes_one_of_settings() -> None:
    with pytest.raises(ConfigurationError, match="max_inactive"):
        SessionMiddleware(app_of(count), max_inactive=-1)
    with pytest.raises(ConfigurationError, match="not both"):
        SessionMiddleware(app_of(count), AsyncSessionManager(), max_inactive=60)
    assert SessionMiddleware(app_of(count), max_age=600)._manager.settings.max_inactive == 600
    assert SessionMiddleware(app_of(count), max_age=600, max_inactive=60)._manager.settings.max_inactive == 60


class UserInfo(dict[str, Any]):
    """As an OpenID client gives it."""


class Label(str):
    """As libraries mark safe or translated texts."""

    __slots__ = ()


class Role(str, Enum):
    ADMIN = "admin"


class Level(IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: int


def test_what_starlettes_own_sessions_can_hold_is_stored_as_they_store_it(loop: asyncio.AbstractEventLoop) -> None:
    given = {
        "user": UserInfo(sub="42", roles=[Role.ADMIN]),
        "role": Role.ADMIN,
        "level": Level.HIGH,
        "ordered": OrderedDict(a=1),
        "point": Point(1, 2),
        "label": Label("<b>"),
        "in a list": [Point(1, 2)],
        "without a loss": (1, b"2"),
    }
    found: dict[str, Any] = {}
    middleware = SessionMiddleware(
        app_of(lambda session, scope: session.update(given) if scope["path"] == "/in" else found.update(session))
    )
    browser = Browser(middleware, loop)
    browser.send(path="/in")
    browser.send()
    loop.run_until_complete(middleware._manager.close())
    assert found == {
        "user": {"sub": "42", "roles": ["admin"]},
        "role": "admin",
        "level": 3,
        "ordered": {"a": 1},
        "point": [1, 2],
        "label": "<b>",
        "in a list": [[1, 2]],
        "without a loss": (1, b"2"),
    }
    assert {type(found[name]) for name in ("user", "role", "level", "ordered", "label")} == {dict, str, int}


def test_a_serializer_of_ones_own_is_not_overruled(manager: AsyncSessionManager) -> None:
    app = app_of(count)
    assert SessionMiddleware(app, serializer="json")._manager.settings.serializer == "json"
    settings = Settings.build()
    assert SessionMiddleware(app, nodes=settings)._manager.settings is settings
    assert SessionMiddleware(app, manager)._manager.settings.serializer == "native"


def test_a_settings_object_decides_how_long_sessions_live_as_a_manager_does() -> None:
    middleware = SessionMiddleware(app_of(count), nodes=Settings.build(max_inactive=60), max_age=600)
    assert (middleware._manager.settings.max_inactive, middleware._cookie.max_age) == (60, 600)


def test_its_manager_is_closed_after_the_application_has_shut_down(loop: asyncio.AbstractEventLoop) -> None:
    seen: list[tuple[str, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            await send({"type": message})

    middleware = SessionMiddleware(app)

    async def send(message: Message) -> None:
        seen.append((message["type"], middleware._manager._ctx.is_closed))

    loop.run_until_complete(middleware({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
    assert seen == [("lifespan.startup.complete", False), ("lifespan.shutdown.complete", True)]


def test_an_application_that_is_started_again_has_an_open_manager_that_knows_what_the_former_did(
    loop: asyncio.AbstractEventLoop,
) -> None:
    seen: list[tuple[str, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await app_of(count)(scope, receive, send)
            return
        for message in ("lifespan.startup.complete", "lifespan.shutdown.complete"):
            await send({"type": message})

    middleware = SessionMiddleware(app)

    async def send(message: Message) -> None:
        seen.append((message["type"], middleware._manager._ctx.is_closed))

    browser = Browser(middleware, loop)
    for n in range(1, 3):
        loop.run_until_complete(middleware({"type": "lifespan"}, None, send))  # type: ignore[arg-type]
        assert browser.send()[1]["body"] == b"%d" % n
    assert seen == [("lifespan.startup.complete", False), ("lifespan.shutdown.complete", True)] * 2


def test_a_manager_that_was_given_is_left_open(
    browse: Callable[..., Browser], manager: AsyncSessionManager, loop: asyncio.AbstractEventLoop
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "lifespan.shutdown.complete"})

    browser = browse(app)
    browser.connect({"type": "lifespan"})
    assert not manager._ctx.is_closed
