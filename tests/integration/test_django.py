"""Django's sessions in real memcached: what a request costs, and what becomes of it when memcached fails."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse

from msm_fast import SessionId, SessionManager
from msm_fast.integrations.django import SessionStore, managers
from tests.adversity.proxy import FaultProxy
from tests.behaviours import Record, timed
from tests.django_site import OUR_WAYS, WAYS, Browser, Site, serve, urls
from tests.django_site.urls import during
from tests.integration.conftest import Nodes
from tests.timeouts import HURRIED, UNHURRIED

pytestmark = pytest.mark.memcached

OURS_AND_DJANGOS = ["threads", "loop", "loop, awaiting", "Django's middleware", "Django's middleware, in a loop"]


@pytest.fixture
def proxies(nodes: Nodes) -> Iterator[dict[str, FaultProxy]]:
    proxies = {name: FaultProxy(nodes[name].port) for name in ("n1", "n2")}
    yield proxies
    for proxy in proxies.values():
        proxy.close()


@pytest.fixture
def site(request: pytest.FixtureRequest, proxies: dict[str, FaultProxy]) -> Iterator[Site]:
    """A site on two nodes; its parameter is the way in which it is served, and settings if need be."""
    way, settings = request.param if isinstance(request.param, tuple) else (request.param, {})
    text = ",".join(f"{name}:{proxy.address}" for name, proxy in proxies.items())
    settings = {"timeouts": UNHURRIED, "reconnect": {"first": 0.1, "cap": 0.2}, **settings}
    with serve(way, MSM_FAST={"nodes": text, **settings}) as site:
        yield site


def in_ways(ways: list[str], **settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("site", [(way, settings) for way in ways], indirect=True, ids=ways)


def with_session(site: Site) -> Browser:
    browser = site.browser()
    browser.post("put", user="ada")
    return browser


def plain_of(browser: Browser) -> str:
    parsed = SessionId.parse(browser.cookie)
    assert parsed is not None
    return parsed.plain


# -- what it costs


@pytest.mark.shows("cost")
@in_ways(list(WAYS))
def test_a_request_costs_what_it_must(site: Site, record_property: Record) -> None:
    browser = with_session(site)
    browser.post("put", warm=1)

    def cost(task: str, **query: object) -> int:
        before = site.round_trips()
        browser.post(task, **query)
        return site.round_trips() - before

    read, write = cost("read"), cost("put", colour="red")
    assert (read, write) == (1, 2)
    assert cost("append", item="apple") == 2
    assert cost("nothing") <= 1  # in an event loop the session is there before the view
    fresh = site.browser()
    before = site.round_trips()
    fresh.get("nothing")
    fresh.get("read")
    without = site.round_trips() - before
    assert without == 0
    record_property("cost", f"{read}, {write}, {without}")


# -- what a session keeps


@pytest.mark.shows("nested")
@in_ways(list(WAYS))
def test_nested_changes_are_stored(site: Site) -> None:
    browser = with_session(site)
    for item in ("apple", "pear"):
        browser.post("append", item=item)
    site.new_worker()
    assert browser.read() == {"user": "ada", "cart": ["apple", "pear"]}


@pytest.mark.shows("fixation", "rotation")
@in_ways(list(WAYS))
def test_a_planted_id_is_not_adopted_and_a_login_leaves_it_behind(site: Site) -> None:
    planted = "0123456789abcdef0123456789abcdef-n1"
    browser = site.browser(planted)
    browser.post("append", item="apple")
    before_login = browser.cookie
    assert before_login != planted
    browser.post("enter")
    assert browser.cookie not in (planted, before_login)
    site.new_worker()
    assert browser.read()["cart"] == ["apple"]
    for dead in (planted, before_login):
        assert site.browser(dead).read() == {}


@pytest.mark.shows("reader")
@in_ways(OURS_AND_DJANGOS)
def test_a_slow_reader_rolls_nothing_back(site: Site, nodes: Nodes) -> None:
    browser = with_session(site)
    during["read"] = lambda: write_elsewhere(nodes, browser.cookie)
    assert browser.read() == {"user": "ada"}
    assert browser.read() == {"user": "ada", "theirs": 1}


# -- other workers


def elsewhere(nodes: Nodes) -> SessionManager:
    """Return the manager of another worker, which reaches the nodes directly."""
    return SessionManager(",".join(f"{name}:{nodes[name].address}" for name in ("n1", "n2")), timeouts=UNHURRIED)


def write_elsewhere(nodes: Nodes, cookie: str | None) -> None:
    with elsewhere(nodes) as manager:
        session = manager.load(cookie or "")
        assert session is not None
        session["theirs"] = 1
        manager.save(session)


@in_ways(OURS_AND_DJANGOS)
def test_another_worker_finds_the_session(site: Site) -> None:
    browser = with_session(site)
    site.new_worker()
    assert browser.read() == {"user": "ada"}


@pytest.mark.shows("writers")
@in_ways(OURS_AND_DJANGOS)
def test_two_overlapping_writers_keep_both_keys(site: Site, nodes: Nodes) -> None:
    browser = with_session(site)
    during["put"] = lambda: write_elsewhere(nodes, browser.cookie)
    browser.post("put", ours="2")
    assert browser.read() == {"user": "ada", "theirs": 1, "ours": "2"}


@pytest.mark.shows("logout")
@in_ways(OURS_AND_DJANGOS)
def test_a_logout_is_not_undone_by_a_request_on_its_way(site: Site, nodes: Nodes) -> None:
    browser = with_session(site)
    cookie = browser.cookie

    def log_out_elsewhere() -> None:
        with elsewhere(nodes) as manager:
            session = manager.load(cookie or "")
            assert session is not None
            manager.invalidate(session)

    during["put"] = log_out_elsewhere
    assert browser.post("put", ours="2").status_code == 400
    site.new_worker()
    assert site.browser(cookie).read() == {}


@in_ways(["loop"])
def test_in_an_event_loop_no_view_waits_for_memcached_in_it(site: Site) -> None:
    browser = with_session(site)
    for item in ("apple", "pear"):
        browser.post("append", item=item)
    assert managers.process_manager().statistics().round_trips == 0


@in_ways(["loop"], on_cluster_lost="error")
def test_a_store_that_is_used_for_long_does_not_run_out_of_time(site: Site) -> None:
    async def write_when_time_is_over() -> None:
        await store.aset("colour", "red")
        store._scope.left_s = -1.0
        await store.asave()

    browser = with_session(site)
    store = SessionStore(browser.cookie)
    assert site.loop is not None
    site.loop.run_until_complete(write_when_time_is_over())
    assert browser.read()["colour"] == "red"


# -- memcached fails


@pytest.mark.shows("node")
@in_ways(OURS_AND_DJANGOS)
def test_the_loss_of_a_node_loses_no_session(site: Site, proxies: dict[str, FaultProxy]) -> None:
    browsers = [with_session(site) for _ in range(6)]
    proxies["n1"].refuse()
    for browser in browsers:
        assert browser.read() == {"user": "ada"}
        assert browser.cookie is not None
        assert browser.cookie.endswith("-n2")
    proxies["n1"].heal()
    for browser in browsers:
        browser.post("append", item="apple")
        assert browser.read() == {"user": "ada", "cart": ["apple"]}


@pytest.mark.shows("outage")
@in_ways(OURS_AND_DJANGOS)
def test_an_outage_logs_nobody_out(site: Site, proxies: dict[str, FaultProxy]) -> None:
    browser = with_session(site)
    plain = plain_of(browser)
    for proxy in proxies.values():
        proxy.refuse()
    assert browser.read() == {"user": "ada"}, "from what this worker has seen"
    site.new_worker()
    assert browser.get("read").status_code == 200
    assert browser.post("put", colour="red").status_code == 200
    assert plain_of(browser) == plain
    for proxy in proxies.values():
        proxy.heal()
    site.wait_until(lambda: browser.read().get("user") == "ada")
    assert plain_of(browser) == plain


@pytest.mark.shows("down", "back")
@in_ways(OUR_WAYS, on_cluster_lost="error")
def test_where_an_outage_is_an_error_the_answer_is_503_and_the_cookie_stays(
    site: Site, proxies: dict[str, FaultProxy], record_property: Record, caplog: pytest.LogCaptureFixture
) -> None:
    browser = with_session(site)
    plain = plain_of(browser)
    for proxy in proxies.values():
        proxy.refuse()
    slowest_s = 0.0
    for task in ("read", "put", "enter", "leave"):
        response, seconds = timed(partial(browser.post, task, colour="red"))
        slowest_s = max(slowest_s, seconds)
        assert response.status_code == 503, task
        assert response.headers["Retry-After"] == "1"
        assert "sessionid" not in response.cookies
    assert browser.get("nothing").status_code == 200
    told = [record for record in caplog.records if record.name == "msm_fast.django"]
    assert [bool(record.exc_info) for record in told] == [False] * 4, "a line for each, and no more"
    for proxy in proxies.values():
        proxy.heal()
    _, wait_s = timed(lambda: site.wait_until(lambda: browser.get("read").status_code == 200))
    assert plain_of(browser) == plain
    assert browser.read() == {"user": "ada"}
    record_property("down", slowest_s)
    record_property("back", wait_s)


@in_ways(OUR_WAYS, on_cluster_lost="error")
def test_the_new_id_of_a_login_reaches_the_client_with_a_503_too(site: Site, proxies: dict[str, FaultProxy]) -> None:
    browser = with_session(site)
    old = plain_of(browser)
    during["enter_and_put"] = lambda: [proxy.refuse() for proxy in proxies.values()]
    assert browser.post("enter_and_put").status_code == 503
    assert plain_of(browser) != old
    for proxy in proxies.values():
        proxy.heal()
    site.wait_until(lambda: browser.get("read").status_code == 200)
    assert browser.read()["user"] == "ada"


@in_ways(OUR_WAYS, on_cluster_lost="error")
def test_a_bug_whose_page_could_not_have_its_session_is_in_the_log_with_the_refusal(
    site: Site, proxies: dict[str, FaultProxy], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        for proxy in proxies.values():
            proxy.refuse()
        raise RuntimeError("a bug")

    def page_of_error(request: HttpRequest) -> HttpResponse:
        request.session["seen"] = "the page"
        request.session.save()
        return HttpResponse("we are sorry", status=500)

    monkeypatch.setattr(urls, "handler500", page_of_error, raising=False)
    browser = with_session(site)
    during["enter_and_put"] = fail
    assert browser.post("enter_and_put").status_code == 503
    assert "RuntimeError: a bug" in caplog.text


@in_ways(OUR_WAYS, on_cluster_lost="error")
def test_an_error_that_a_view_has_caught_itself_is_not_in_the_log_with_the_refusal(
    site: Site, proxies: dict[str, FaultProxy], caplog: pytest.LogCaptureFixture
) -> None:
    browser = with_session(site)
    for proxy in proxies.values():
        proxy.refuse()
    assert browser.get("caught").status_code == 503
    assert "a request was refused" in caplog.text
    assert "KeyError" not in caplog.text


@in_ways(["loop"], on_cluster_lost="error")
def test_what_could_not_be_had_is_not_tried_again_in_the_loop(site: Site, proxies: dict[str, FaultProxy]) -> None:
    browser = with_session(site)
    for proxy in proxies.values():
        proxy.refuse()
    assert browser.get("read_twice").content == b"neither time"
    assert managers.process_manager().statistics().unavailable == 0


@in_ways(["Django's middleware", "Django's middleware, in a loop"], on_cluster_lost="error")
def test_with_djangos_middleware_the_cookie_stays_too(site: Site, proxies: dict[str, FaultProxy]) -> None:
    browser = with_session(site)
    for proxy in proxies.values():
        proxy.refuse()
    for task in ("read", "put", "leave"):
        response = browser.post(task, colour="red")
        assert response.status_code == 500
        assert "sessionid" not in response.cookies


@pytest.mark.shows("hanging", "back")
@in_ways(OURS_AND_DJANGOS, timeouts=HURRIED)
def test_nodes_that_hang_hold_a_request_up_no_longer_than_the_settings_say(
    site: Site, proxies: dict[str, FaultProxy], record_property: Record
) -> None:
    browser = with_session(site)
    plain = plain_of(browser)
    for proxy in proxies.values():
        proxy.black_hole()
    site.new_worker()
    slowest_s = 0.0
    for task in ("read", "put"):
        response, seconds = timed(partial(browser.post, task, colour="red"))
        slowest_s = max(slowest_s, seconds)
        assert response.status_code == 200
    assert slowest_s < 1.5
    for proxy in proxies.values():
        proxy.heal()
    _, wait_s = timed(lambda: site.wait_until(lambda: browser.read().get("user") == "ada"))
    assert plain_of(browser) == plain
    record_property("hanging", slowest_s)
    record_property("back", wait_s)


# -- bad data


def spoil(nodes: Nodes, browser: Browser, *names: str) -> None:
    for name in names:
        with nodes[name].client() as client:
            client.set(plain_of(browser), b"not a record")


@pytest.mark.shows("corrupt")
@in_ways(OURS_AND_DJANGOS)
def test_a_corrupt_copy_is_replaced_by_the_good_one(site: Site, nodes: Nodes) -> None:
    browser = with_session(site)
    assert browser.cookie is not None
    spoil(nodes, browser, browser.cookie.rpartition("-")[2])
    site.new_worker()
    assert browser.read() == {"user": "ada"}
    browser.post("append", item="apple")
    assert browser.read() == {"user": "ada", "cart": ["apple"]}


@in_ways(OUR_WAYS)
def test_a_session_that_nobody_can_read_gives_a_new_one_and_no_error(site: Site, nodes: Nodes) -> None:
    browser = with_session(site)
    spoil(nodes, browser, "n1", "n2")
    site.new_worker()
    response = browser.get("read")
    assert response.json() == {}
    assert "sessionid" not in response.cookies, "the cookie is not deleted because of the store"
    browser.post("append", item="apple")
    assert browser.read() == {"cart": ["apple"]}


@pytest.mark.shows("unserializable")
@in_ways(OURS_AND_DJANGOS, on_unserializable="blacklist")
def test_a_value_that_cannot_be_stored_costs_nobody_the_session(site: Site) -> None:
    browser = with_session(site)
    assert browser.post("spoil").status_code == 200
    assert browser.read() == {"user": "ada", "bad": None}


@pytest.mark.shows("unserializable")
@in_ways(OURS_AND_DJANGOS)
def test_where_such_a_value_is_an_error_the_cookie_stays(site: Site) -> None:
    browser = with_session(site)
    response = browser.post("spoil")
    assert response.status_code == 500
    assert "sessionid" not in response.cookies
    site.new_worker()
    assert browser.read() == {"user": "ada"}


@in_ways(OUR_WAYS)
def test_where_it_comes_after_a_login_the_client_is_told_the_new_id(site: Site) -> None:
    browser = with_session(site)
    assert browser.post("enter_and_put", bad=1).status_code == 500
    site.new_worker()
    assert browser.read()["user"] == "ada"
