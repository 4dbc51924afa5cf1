"""The ASGI middleware, on the embedded local store, by ASGI's own messages."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from enum import Enum, IntEnum
from http.cookies import SimpleCookie
from typing import Any, NamedTuple

import pytest

from msm_fast import (
    ApplicationStopped,
    AsyncSessionManager,
    ConfigurationError,
    CorruptRecord,
    LockTimeout,
    SaveResult,
    SerializationError,
    SessionId,
    SessionManager,
    SessionUnavailable,
    Settings,
)
from msm_fast.integrations.asgi import AsyncSession, SessionMiddleware
from msm_fast.integrations.cookies import CookieSettings
from msm_fast.request_scope import AsyncRequestScope

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


def count(session: Any, scope: Any) -> int:
    session["n"] = session.get("n", 0) + 1
    return int(session["n"])


def test_the_session_is_kept_from_request_to_request(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(count))
    assert [browser.send()[1]["body"] for _ in range(3)] == [b"1", b"2", b"3"]


def test_a_session_may_be_given_lifetimes_of_its_own(
    browse: Callable[..., Browser], manager: AsyncSessionManager, loop: asyncio.AbstractEventLoop
) -> None:
    def shorten(session: AsyncSession, scope: Any) -> None:
        session["user"] = "ada"
        session.max_inactive, session.absolute_lifetime = 60, 600

    browser = browse(app_of(shorten))
    browser.send("POST")
    stored = loop.run_until_complete(manager.load(browser.cookie or ""))
    assert stored is not None
    assert (stored.max_inactive, stored.absolute_lifetime) == (60, 600)


def test_the_cookie_is_set_once(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(count))
    browser.send()
    assert browser.header("set-cookie") == f"session={browser.cookie}; Path=/; HttpOnly; SameSite=Lax"
    assert (browser.header("vary"), browser.header("cache-control")) == ("Cookie", "no-store")
    browser.send()
    assert browser.header("set-cookie") is None
    assert (browser.header("vary"), browser.header("cache-control")) == ("Cookie", None)


def test_what_the_application_says_to_caches_is_added_to(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(count, (b"Vary", b"Accept"), (b"cache-control", b"max-age=60"), (b"x-served-by", b"w1")))
    browser.send()
    assert (browser.header("vary"), browser.header("cache-control")) == ("Accept, Cookie", "no-store")
    browser.send()
    assert browser.sent[0]["headers"] == [
        PLAIN,
        (b"x-served-by", b"w1"),
        (b"cache-control", b"max-age=60"),
        (b"vary", b"Accept, Cookie"),
    ]


def test_over_http_2_the_cookies_may_come_in_several_headers(
    browse: Callable[..., Browser], loop: asyncio.AbstractEventLoop
) -> None:
    browser = browse(app_of(count))
    browser.send()
    assert browser.cookie is not None
    cookies = [(b"cookie", b"theme=dark"), (b"cookie", b"session=" + browser.cookie.encode()), (b"cookie", b"a=\xe9")]
    scope = {"type": "http", "method": "GET", "path": "/", "scheme": "http", "headers": cookies}
    loop.run_until_complete(browser.app(scope, browser._receive, browser._send))
    assert browser.sent[-1]["body"] == b"2"


def test_a_request_that_does_not_look_at_its_session_is_passed_on_as_it_is(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(lambda session, scope: "hello"))
    assert browser.send() == [
        {"type": "http.response.start", "status": 200, "headers": [PLAIN]},
        {"type": "http.response.body", "body": b"hello"},
    ]


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


@pytest.mark.parametrize("end", [AsyncSession.invalidate, AsyncSession.clear])
def test_a_logout_deletes_the_cookie(browse: Callable[..., Browser], end: Callable[[AsyncSession], None]) -> None:
    browser = browse(app_of(lambda session, scope: end(session) if scope["path"] == "/out" else count(session, 0)))
    browser.send()
    old = browser.cookie
    browser.send(path="/out")
    assert "Max-Age=0" in (browser.header("set-cookie") or "")
    assert browser.cookie is None
    browser.cookie = old
    assert browser.send()[1]["body"] == b"1", "the id is dead"


def test_a_session_that_was_emptied_key_by_key_keeps_its_cookie(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(lambda session, scope: session.pop("n") if scope["path"] == "/pop" else count(session, 0)))
    browser.send()
    before = browser.cookie
    browser.send(path="/pop")
    assert browser.header("set-cookie") is None
    assert browser.send()[1]["body"] == b"1"
    assert browser.cookie == before


def test_after_a_value_that_stopped_the_application_every_request_fails(browse: Callable[..., Browser]) -> None:
    browser = browse(app_of(lambda session, scope: scope["path"] == "/bad" and session.update(bad=object())))
    browser.send()
    with pytest.raises(SerializationError):
        browser.send(path="/bad")
    with pytest.raises(ApplicationStopped):
        browser.send()


def test_the_session_is_a_dict_in_every_way(browse: Callable[..., Browser]) -> None:
    def handle(session: Any, scope: Any) -> str:
        session.update(a=1)
        session |= {"b": 2}
        assert (session | {"c": 3}, {"c": 3} | session) == ({"a": 1, "b": 2, "c": 3}, {"c": 3, "a": 1, "b": 2})
        assert session.copy() == {"a": 1, "b": 2} == session
        assert session.setdefault("d", []) is session["d"]
        assert (session.pop("d"), session.pop("d", None)) == ([], None)
        assert session.popitem() in (("a", 1), ("b", 2))
        assert (len(session), session.is_new, session.id in repr(session)) == (1, True, False)
        return "done"

    assert browse(app_of(handle)).send()[1]["body"] == b"done"


def test_a_login_gives_the_session_a_new_id_in_the_same_response(browse: Callable[..., Browser]) -> None:
    browser = browse(
        app_of(lambda session, scope: session.rotate_id() if scope["path"] == "/in" else count(session, 0))
    )
    browser.send()
    before = browser.cookie
    browser.send(path="/in")
    assert browser.cookie not in (None, before)
    assert browser.send()[1]["body"] == b"2"
    browser.cookie = before
    assert browser.send()[1]["body"] == b"1"


def test_an_id_that_a_client_made_up_is_not_adopted(browse: Callable[..., Browser]) -> None:
    chosen = str(SessionId.generate())
    browser = browse(app_of(count))
    browser.cookie = chosen
    browser.send()
    assert browser.cookie != chosen


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


class Failing(AsyncRequestScope):
    """A scope whose session cannot be found, or not be stored."""

    error: Exception
    fails_to = "load"

    def _find(self) -> Any:
        if self.fails_to == "load":
            raise self.error
        return super()._find()

    async def save(self) -> SaveResult:
        if self.fails_to == "save" and self.session.was_used:
            raise self.error
        return await super().save()


@pytest.fixture(params=["load", "save"])
def failing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    monkeypatch.setattr(Failing, "fails_to", request.param)
    monkeypatch.setattr(Failing, "error", SessionUnavailable("no node"), raising=False)
    monkeypatch.setattr("msm_fast.async_manager.AsyncRequestScope", Failing)
    return Failing


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
