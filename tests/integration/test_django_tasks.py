"""Django's session of one view, used by several of its tasks or threads at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError

from msm_fast.integrations.django import SessionStore, managers
from tests.django_site import Browser, Site
from tests.integration.test_django import in_ways, proxies, site, with_session

__all__ = ["proxies", "site"]

pytestmark = pytest.mark.memcached


async def begun(browser: Browser) -> SessionStore:
    """Return the session of a request in an event loop, as the middleware has it."""
    store = SessionStore(browser.cookie)
    store.begin_request("POST", "/", in_threads=False)
    await store.preload()
    return store


@in_ways(["loop, awaiting"])
def test_who_saves_the_session_while_another_task_of_the_view_logs_out_is_told_that_it_was_ended(site: Site) -> None:
    browser = with_session(site)

    async def view() -> None:
        store = await begun(browser)
        store["seen"] = 1
        leaving = asyncio.ensure_future(store.aflush())
        await asyncio.sleep(0)
        with pytest.raises(UpdateError):
            await store.asave()
        await leaving
        await store.aclose()
        assert store.session_key is None

    asyncio.run(view())
    assert browser.read() == {}


@in_ways(["Django's middleware, in a loop"])
@pytest.mark.parametrize("act", ["cycle_key", "put", "flush"])
def test_tasks_of_a_view_that_look_at_the_session_at_once_have_one(site: Site, act: str) -> None:
    browser = with_session(site)

    async def put(store: SessionStore, name: str) -> None:
        (await store._aget_session())[name] = 1

    async def view() -> None:
        store = SessionStore(browser.cookie)
        acts = {"cycle_key": store.acycle_key, "put": partial(put, store, "two"), "flush": store.aflush}
        await asyncio.gather(put(store, "one"), acts[act]())
        if act == "flush":
            assert store.session_key is None
        else:
            await store.asave()
            expected = {"user": "ada", "one": 1, **({"two": 1} if act == "put" else {})}
            assert dict(SessionStore(store.session_key).items()) == expected
        assert (store.session_key == browser.cookie) is (act == "put")

    asyncio.run(view())
    assert (browser.read() == {}) is (act != "put")


@in_ways(["threads"])
def test_threads_of_a_view_that_look_at_the_session_at_once_have_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = with_session(site)
    asked, may_go_on = hold_up_lookups(monkeypatch)
    store = SessionStore(browser.cookie)
    with ThreadPoolExecutor(2) as threads:
        for name in ("one", "two"):
            threads.submit(store.__setitem__, name, 1)
        for _ in range(2):
            asked.acquire(timeout=0.2)  # the second asks in vain, if at all
        may_go_on.set()
    store.save()
    assert browser.read() == {"user": "ada", "one": 1, "two": 1}


@in_ways(["threads, asynchronous views"])
@pytest.mark.parametrize("act", ["put", "flush"])
def test_a_task_and_a_thread_of_a_view_that_is_served_without_a_loop_have_one(
    site: Site, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    browser = with_session(site)
    asked, may_go_on = hold_up_lookups(monkeypatch)

    async def view() -> SessionStore:
        store = SessionStore(browser.cookie)
        store.begin_request("POST", "/", in_threads=True)
        acts = {"put": partial(store.aset, "two", 1), "flush": store.aflush}
        both = asyncio.gather(asyncio.to_thread(store.__setitem__, "one", 1), acts[act]())
        for _ in range(2):
            await asyncio.to_thread(asked.acquire, timeout=0.2)
        may_go_on.set()
        await both
        return store

    store = asyncio.run(view())
    assert dict(store.items()).keys() >= ({"one", "two"} if act == "put" else set())
    assert (store.get("user") == "ada") is (act == "put")
    assert (store.session_key == browser.cookie) is (act == "put")


def hold_up_lookups(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Semaphore, threading.Event]:
    """Have threads look sessions up only once the event is set; each releases the semaphore before that."""
    driver = managers.process_manager()._driver
    asked, may_go_on, exchange = threading.Semaphore(0), threading.Event(), driver.exchange

    def exchange_slowly(*args: Any) -> Any:
        asked.release()
        may_go_on.wait(20)
        return exchange(*args)

    monkeypatch.setattr(driver, "exchange", exchange_slowly)
    return asked, may_go_on
