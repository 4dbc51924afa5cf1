"""Django's requests on the embedded local store, in each way that Django may serve them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.django_site import OUR_WAYS, WAYS, Site, serve
from tests.django_site.urls import during


@pytest.fixture(params=list(WAYS))
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    with serve(request.param) as site:
        yield site


@pytest.fixture(params=OUR_WAYS)
def our_site(request: pytest.FixtureRequest) -> Iterator[Site]:
    """Served by msm_fast's own middleware."""
    with serve(request.param) as site:
        yield site


def test_a_session_is_found_again(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    assert browser.read() == {"user": "ada"}


def test_a_change_inside_a_value_is_stored(site: Site) -> None:
    browser = site.browser()
    for item in ("apple", "pear", "fig"):
        browser.get("append", item=item)
    assert browser.read() == {"cart": ["apple", "pear", "fig"]}


def test_all_kinds_of_views_of_a_process_share_sessions() -> None:
    cookie = None
    with serve("loop") as site:
        for kind in ("sync", "async", "awaiting"):
            browser = site.browser(cookie)
            browser._kind = kind
            browser.get("append", item=kind)
            cookie = browser.cookie
        assert browser.read() == {"cart": ["sync", "async", "awaiting"]}


def test_a_request_that_does_not_look_at_its_session_has_no_cookie_and_does_not_vary(site: Site) -> None:
    response = site.browser().get("nothing")
    assert "sessionid" not in response.cookies
    assert "Vary" not in response.headers


def test_a_request_that_only_reads_varies_by_cookie_and_sets_none(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    response = browser.get("read")
    assert response.headers["Vary"] == "Cookie"
    assert "sessionid" not in response.cookies


@pytest.mark.parametrize("way", OUR_WAYS)
@pytest.mark.parametrize("cookie", [None, "0123456789abcdef0123456789abcdef"])
def test_a_request_that_only_reads_begins_no_session_whatever_is_learned_of_it(way: str, cookie: str | None) -> None:
    with serve(way, MSM_FAST={"locking": "auto"}) as site:
        response = site.browser(cookie).get("read")
        assert "sessionid" not in response.cookies
        assert "Cache-Control" not in response.headers


def test_a_client_does_not_choose_its_id(site: Site) -> None:
    chosen = "0123456789abcdef0123456789abcdef"
    browser = site.browser(chosen)
    browser.get("put", user="ada")
    assert browser.cookie not in (None, chosen)
    assert site.browser(chosen).read() == {}


def test_a_login_gives_another_id_and_the_old_one_is_dead(site: Site) -> None:
    browser = site.browser()
    browser.get("append", item="apple")
    old = browser.cookie
    browser.get("enter")
    assert browser.cookie != old
    assert browser.read()["cart"] == ["apple"]
    assert site.browser(old).read() == {}


def test_a_logout_ends_the_session_and_the_cookie(site: Site) -> None:
    browser = site.browser()
    browser.get("enter")
    old = browser.cookie
    response = browser.get("leave")
    assert response.cookies["sessionid"]["max-age"] == 0
    assert site.browser(old).read() == {}


def test_a_slow_write_does_not_bring_back_what_was_logged_out(site: Site) -> None:
    browser = site.browser()
    browser.get("enter")
    cookie = browser.cookie
    other = _threads_browser(cookie)
    during["put"] = lambda: other.get("leave")
    assert browser.get("put", colour="red").status_code == 400
    assert site.browser(cookie).read() == {}


def test_two_requests_that_overlap_both_keep_what_they_wrote(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    other = _threads_browser(browser.cookie)
    during["put"] = lambda: other.get("put", theirs="1")
    browser.get("put", ours="2")
    assert browser.read() == {"user": "ada", "theirs": "1", "ours": "2"}


def test_a_slow_reader_undoes_nothing(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    other = _threads_browser(browser.cookie)
    during["read"] = lambda: other.get("put", theirs="1")
    assert browser.read() == {"user": "ada"}
    assert browser.read() == {"user": "ada", "theirs": "1"}


def test_an_error_page_stores_nothing(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    browser.get("refuse")
    assert browser.read() == {"user": "ada"}


def test_an_emptied_session_is_saved_and_keeps_its_cookie(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    cookie = browser.cookie
    assert browser.get("empty").status_code == 200
    assert browser.cookie == cookie
    assert browser.read() == {}


def test_the_new_id_of_a_login_reaches_the_client_with_an_error_page_too(our_site: Site) -> None:
    browser = our_site.browser()
    browser.get("append", item="apple")
    old = browser.cookie
    assert browser.get("enter_and_fail").status_code == 500
    assert browser.cookie != old
    assert browser.read()["cart"] == ["apple"]


def test_a_cookie_that_the_store_does_not_know_is_left_alone(our_site: Site) -> None:
    response = our_site.browser("0123456789abcdef0123456789abcdef").get("read")
    assert "sessionid" not in response.cookies


def test_a_response_that_sets_the_cookie_is_not_to_be_stored(our_site: Site) -> None:
    assert our_site.browser().get("put", user="ada").headers["Cache-Control"] == "no-store"


def test_saving_every_request_sets_the_cookie_each_time_but_makes_no_session() -> None:
    for way in OUR_WAYS:
        with serve(way, SESSION_SAVE_EVERY_REQUEST=True) as site:
            browser = site.browser()
            assert "sessionid" not in browser.get("read").cookies
            browser.get("put", user="ada")
            assert browser.get("nothing").cookies["sessionid"].value == browser.cookie
            stale = site.browser("0123456789abcdef0123456789abcdef").get("nothing")
            assert stale.status_code == 200
            assert "sessionid" not in stale.cookies


def test_the_cookie_is_as_the_settings_say() -> None:
    changed = {
        "SESSION_COOKIE_AGE": 60,
        "SESSION_COOKIE_SECURE": True,
        "SESSION_COOKIE_SAMESITE": "Strict",
        "SESSION_COOKIE_PATH": "/sync",
        "SESSION_COOKIE_DOMAIN": "example.com",
    }
    with serve("threads", **changed) as site:
        morsel = site.browser().get("put", user="ada").cookies["sessionid"]
        names = ("max-age", "secure", "samesite", "path", "domain", "httponly")
        assert [morsel[name] for name in names] == [60, True, "Strict", "/sync", "example.com", True]


def test_a_session_that_ends_with_the_browser_has_a_cookie_without_an_age(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    assert browser.get("expire", seconds=0).cookies["sessionid"]["max-age"] == ""


def test_an_ignored_request_changes_nothing_and_sets_no_cookie() -> None:
    for way in OUR_WAYS:
        with serve(way, MSM_FAST={"ignore_requests": ".*/(append|rotate|leave)"}) as site:
            browser = site.browser()
            assert "sessionid" not in browser.get("append", item="apple").cookies
            browser.get("put", user="ada")
            cookie = browser.cookie
            for task in ("append", "rotate", "leave"):
                assert "sessionid" not in browser.get(task, item="apple").cookies, (way, task)
            assert site.browser(cookie).read() == {"user": "ada"}


def test_a_stopped_application_still_serves_what_needs_no_session(our_site: Site) -> None:
    browser = our_site.browser()
    browser.get("put", user="ada")
    assert browser.get("spoil").status_code == 500
    assert browser.get("nothing").status_code == 200
    response = browser.get("read")
    assert response.status_code == 500
    assert "sessionid" not in response.cookies


def test_a_view_may_put_another_engines_session_in_place(our_site: Site) -> None:
    response = our_site.browser().get("other_engine")
    assert response.status_code == 200
    assert ":" in response.cookies["sessionid"].value, "signed by Django"


def test_with_another_engine_the_middleware_is_djangos() -> None:
    with serve("threads", SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies") as site:
        browser = site.browser()
        browser.get("put", user="ada")
        assert browser.read() == {"user": "ada"}


def test_a_view_has_the_cookie_set_again_by_calling_the_session_modified(site: Site) -> None:
    browser = site.browser()
    browser.get("put", user="ada")
    assert browser.get("touch").cookies["sessionid"].value == browser.cookie


def test_what_a_view_sets_modified_to_counts(make_store: Callable[..., object]) -> None:
    store = make_store()
    store["cart"] = []
    store.save()
    again = make_store(store.session_key)
    again["cart"].append("apple")
    assert again.modified
    again.modified = False
    assert not again.modified
    again["user"] = "ada"
    assert again.modified


@pytest.fixture
def make_store() -> Iterator[Callable[..., object]]:
    from msm_fast.integrations.django import SessionStore

    with serve("threads"):
        yield SessionStore


def _threads_browser(cookie: str | None) -> object:
    """Return another browser with the same cookie, that may be used while a request is served."""
    return _InThread(cookie)


class _InThread:
    """A browser on threads: in an event loop that runs no other loop could."""

    def __init__(self, cookie: str | None) -> None:
        self._cookie = cookie

    def get(self, task: str, **query: str) -> None:
        import threading

        from tests.django_site import Browser

        browser = Browser("sync", None)
        browser.cookie = self._cookie
        thread = threading.Thread(target=browser.get, args=(task,), kwargs=query)
        thread.start()
        thread.join()
