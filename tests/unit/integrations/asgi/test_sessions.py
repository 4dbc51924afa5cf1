"""Sessions in ASGI applications, on the embedded local store, by ASGI's own messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import ApplicationStopped, AsyncSessionManager, SerializationError, SessionId
from msm_fast.integrations.asgi import AsyncSession
from tests.unit.integrations.asgi.browser import PLAIN, Browser, app_of, count


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
