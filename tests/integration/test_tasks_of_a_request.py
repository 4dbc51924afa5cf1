"""The session of one request, used by several of its tasks at once: a login or a change while a save is on its way."""

from __future__ import annotations

import asyncio

import pytest

from msm_fast import AsyncSessionManager
from tests.integration.conftest import Nodes
from tests.integration.test_asyncio import Run, put, run, seen, text_of
from tests.timeouts import UNHURRIED

__all__ = ["run"]

pytestmark = pytest.mark.memcached


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("waits", [True, False])
def test_a_save_that_is_on_its_way_takes_nothing_from_a_login(
    nodes: Nodes, run: Run, is_known: bool, waits: bool
) -> None:
    """As when tasks of one request save what they have found, each by itself."""

    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED) as manager:
            before = await put(manager, cart=[1]) if is_known else None
            scope = manager.request(before, "POST")
            session = await scope.load()
            session["seen"] = 1
            given = before or session.id
            saving = asyncio.ensure_future(scope.save())
            await asyncio.sleep(0)
            session.rotate_id()
            session["user"] = "ann"
            if waits:
                await saving
            assert (await scope.save()).status == "stored"
            await asyncio.gather(saving, scope.close())
            expected = {"cart": [1], "seen": 1, "user": "ann"} if is_known else {"seen": 1, "user": "ann"}
            assert await seen(manager, session.id) == expected
            assert await manager.load(given) is None

    run(test())


@pytest.mark.parametrize("is_known", [True, False])
def test_a_session_without_a_request_may_get_a_new_id_while_a_save_is_on_its_way(
    nodes: Nodes, run: Run, is_known: bool
) -> None:
    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED) as manager:
            session = manager.create()
            if is_known:
                session = await manager.load(await put(manager, cart=[1])) or session
            session["seen"] = 1
            given = session.id
            await asyncio.gather(manager.save(session), manager.rotate_id(session))
            session["user"] = "ann"
            assert (await manager.save(session)).status == "stored"
            assert await seen(manager, session.id) == {**({"cart": [1]} if is_known else {}), "seen": 1, "user": "ann"}
            assert await manager.load(given) is None

    run(test())


@pytest.mark.parametrize("is_broken_off", [True, False])
def test_a_login_that_is_broken_off_or_met_by_another_takes_nothing_from_other_requests(
    nodes: Nodes, run: Run, is_broken_off: bool
) -> None:
    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED) as manager:
            given = await put(manager, cart=[1])
            scope = manager.request(given, "POST")
            session = await scope.load()
            await put(manager, given, theirs=1)
            session.rotate_id()
            session["user"] = "ann"
            saving = asyncio.ensure_future(scope.save())
            await asyncio.sleep(0)
            saving.cancel() if is_broken_off else session.rotate_id()
            await asyncio.gather(saving, return_exceptions=True)
            assert (await scope.save()).status == "stored"
            assert await seen(manager, session.id) == {"cart": [1], "theirs": 1, "user": "ann"}
            assert await manager.load(given) is None

    run(test())


def test_a_login_in_a_sticky_session_has_what_others_stored_while_a_save_was_on_its_way(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        sticky = {"sticky": True, "route": "w1", "backup": "sync"}
        async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED, **sticky) as manager:
            given = await put(manager, cart=[1])
            scope, other = manager.request(given, "POST"), manager.request(given, "POST")
            session, others = await scope.load(), await other.load()
            session["seen"] = 1
            saving = asyncio.ensure_future(scope.save())
            await asyncio.sleep(0)
            session.rotate_id()
            session["user"] = "ann"
            others["theirs"] = 1
            await asyncio.gather(saving, other.save())
            await scope.save()
            assert await seen(manager, session.id) == {"cart": [1], "seen": 1, "theirs": 1, "user": "ann"}

    run(test())


def test_a_session_is_looked_up_once_however_often_its_request_loads_it(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), locking="all", timeouts=UNHURRIED) as manager:
            scope = manager.request(await put(manager, n=1), "POST")
            before = manager.statistics()
            for _ in range(3):
                assert (await scope.load())["n"] == 1
            await scope.close()
            after = manager.statistics()
            assert (after.loaded - before.loaded, after.locks - before.locks) == (1, 1)

    run(test())


def test_a_lifetime_that_is_set_while_a_save_is_on_its_way_is_stored_by_the_next(nodes: Nodes, run: Run) -> None:
    async def test() -> None:
        async with AsyncSessionManager(text_of(nodes), timeouts=UNHURRIED) as manager:
            async with manager.request(cookie := await put(manager, n=1), "POST") as session:
                session["n"] = 2
            scope = manager.request(cookie, "POST")
            session = await scope.load()
            session["n"] = 3
            saving = asyncio.ensure_future(scope.save())
            await asyncio.sleep(0)
            session.max_inactive = 60
            await saving
            await scope.save()
            found = await manager.load(cookie)
            assert found is not None
            assert found.max_inactive == 60

    run(test())
