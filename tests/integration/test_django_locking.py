"""Django's sessions with locks in real memcached: who takes one, and that nobody keeps one."""

from __future__ import annotations

import asyncio
import time

import pytest

from msm_fast.integrations.django import SessionStore, managers
from tests.django_site import OUR_WAYS, Browser, Site
from tests.django_site.urls import during
from tests.integration.conftest import Nodes
from tests.integration.test_django import in_ways, plain_of, proxies, site, with_session

__all__ = ["proxies", "site"]

pytestmark = pytest.mark.memcached


def locks_of(browser: Browser, nodes: Nodes) -> list[object]:
    """Return what the nodes have for the lock of the browser's session."""
    with nodes["n1"].client() as one, nodes["n2"].client() as two:
        return [client.get(f"msm:lock:{plain_of(browser)}") for client in (one, two)]


@in_ways(OUR_WAYS, locking="all")
def test_requests_with_a_lock_let_it_go_whatever_they_do(site: Site) -> None:
    browser = with_session(site)
    started = time.monotonic()
    for task in ("read", "save_now", "nothing", "refuse", "enter_and_fail", "append", "rotate", "enter"):
        assert browser.post(task, item="apple").status_code != 503, task
    site.new_worker()
    browser.post("append", item="pear")
    assert time.monotonic() - started < 4, "nobody has waited for a lock"
    assert browser.read()["cart"] == ["apple", "pear"]


@in_ways(["loop"], locking="all")
def test_a_lock_is_gone_when_the_response_is_there(site: Site, nodes: Nodes) -> None:
    browser = with_session(site)
    browser.post("nothing")
    assert locks_of(browser, nodes) == [None, None]


@in_ways(OUR_WAYS, locking="all")
def test_a_lock_goes_with_the_save_and_not_before_where_a_view_saves(site: Site, nodes: Nodes) -> None:
    left: list[object] = []
    browser = with_session(site)
    during["save_now"] = lambda: left.extend(locks_of(browser, nodes))
    before = site.round_trips()
    browser.post("save_now")
    assert left == [None, None]
    assert site.round_trips() - before == 2, "it is let go in the round trip that saves"


@in_ways(["loop"], locking="all")
def test_a_request_that_is_broken_off_lets_its_lock_go(site: Site, nodes: Nodes) -> None:
    def break_off() -> None:
        raise asyncio.CancelledError

    browser = with_session(site)
    during["read"] = break_off
    with pytest.raises(asyncio.CancelledError):
        browser.get("read")
    started = time.monotonic()
    assert browser.post("append", item="apple").status_code == 200
    assert time.monotonic() - started < 4


@in_ways(["loop"], locking="auto")
def test_a_request_that_never_looks_at_its_session_is_soon_given_no_lock(site: Site) -> None:
    def locks() -> int:
        return sum(manager.statistics().locks for manager in managers.managers()._all())

    browser = with_session(site)
    for _ in range(2):
        browser.get("nothing")
    before = locks()
    browser.get("nothing")
    assert locks() == before


@in_ways(["threads"], locking="all")
def test_a_session_may_be_looked_up_again_in_a_request_that_has_its_lock(site: Site) -> None:
    store = SessionStore(with_session(site).cookie)
    store.begin_request("GET", "/", in_threads=True)
    for _ in range(2):
        assert store.load()["user"] == "ada"
    store.close()


@in_ways(["Django's middleware", "Django's middleware, in a loop"], locking="all")
def test_with_djangos_middleware_there_are_no_locks(site: Site) -> None:
    browser = with_session(site)
    browser.read()
    assert [manager.statistics().locks for manager in managers.managers()._all()] in ([0], [0, 0])


@in_ways(["threads", "threads, asynchronous views"], locking="all")
def test_a_session_that_only_the_body_of_a_response_looks_at_is_not_locked(site: Site, nodes: Nodes) -> None:
    browser = with_session(site)
    assert b"".join(browser.get("stream")) == b"ada"
    assert locks_of(browser, nodes) == [None, None]


@in_ways(["loop"], locking="all")
@pytest.mark.parametrize("end", ["close", "aclose", "abandon"])
def test_a_session_that_is_first_looked_at_when_its_request_has_ended_is_not_locked(
    site: Site, nodes: Nodes, end: str
) -> None:
    browser = with_session(site)
    store = SessionStore(browser.cookie)
    store.begin_request("GET", "/", in_threads=end == "close")
    ending = getattr(store, end)()
    if ending is not None:
        assert site.loop is not None
        site.loop.run_until_complete(ending)
    assert store["user"] == "ada"
    assert locks_of(browser, nodes) == [None, None]
