"""A manager for threads and one for an event loop in one process, which share their memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from msm_fast import AsyncSessionManager, SessionManager
from msm_fast.engine.copies import encode_tombstone
from msm_fast.engine.versions import cas_of
from msm_fast.request_scope import RequestScope
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.memcached


@pytest.fixture
def manager_class() -> type[SessionManager]:
    return SessionManager


@pytest.fixture
def threads(make_manager: Callable[..., SessionManager]) -> SessionManager:
    return make_manager()


@asynccontextmanager
async def beside(threads: SessionManager) -> AsyncIterator[AsyncSessionManager]:
    async with AsyncSessionManager(threads.settings) as manager:
        manager.share_memory(threads)
        yield manager


def new_session(manager: SessionManager) -> str:
    with manager.request(None, "POST") as session:
        session["user"] = "ada"
    return session.id


def found_by(manager: SessionManager, session_id: str) -> RequestScope:
    scope = manager.request(session_id, "POST")
    assert scope.session["user"] == "ada"
    return scope


async def store_instead(loop: AsyncSessionManager, found: RequestScope) -> tuple[str, int]:
    """Store in an event loop what the other manager has found; return what the save said, and its round trips."""
    before = loop.statistics().round_trips
    scope = loop.request(None, "POST")
    scope.take_over(found)
    scope.session["colour"] = "red"
    result = await scope.save()
    return result.status, loop.statistics().round_trips - before


def test_what_one_has_found_the_other_stores_in_one_round_trip(threads: SessionManager) -> None:
    async def main() -> tuple[str, int]:
        async with beside(threads) as loop:
            return await store_instead(loop, found_by(threads, session_id))

    session_id = new_session(threads)
    assert asyncio.run(main()) == ("stored", 1)
    found = threads.load(session_id)
    assert found is not None
    assert dict(found) == {"user": "ada", "colour": "red"}


def test_what_another_worker_wrote_meanwhile_is_kept(
    threads: SessionManager, make_manager: Callable[..., SessionManager]
) -> None:
    async def main() -> str:
        async with beside(threads) as loop:
            found = found_by(threads, session_id)
            other = make_manager()
            session = other.load(session_id)
            assert session is not None
            session["theirs"] = 1
            other.save(session)
            return (await store_instead(loop, found))[0]

    session_id = new_session(threads)
    assert asyncio.run(main()) == "merged"
    found = threads.load(session_id)
    assert found is not None
    assert dict(found) == {"user": "ada", "theirs": 1, "colour": "red"}


def test_versions_from_before_a_restart_count_for_neither(threads: SessionManager, nodes: Nodes) -> None:
    """memcached gives the same CAS values again after a restart: they must not be taken for those from before."""

    async def main() -> tuple[str, int]:
        async with beside(threads) as loop:
            found = found_by(threads, session_id)
            end_with_the_same_versions(found, nodes)
            return await store_instead(loop, found)

    session_id = new_session(threads)
    assert asyncio.run(main())[0] == "invalidated"


def end_with_the_same_versions(found: RequestScope, nodes: Nodes) -> None:
    """Restart the nodes, and put a tombstone in place of each copy that gets the CAS value which that had."""
    state = found.session.state
    assert state.stored is not None
    key = state.session_id.plain.encode()
    tombstone = encode_tombstone(found._ctx, key, state.session_id, 1800)
    for name, version in state.stored.copies.items():
        if version > 0:
            nodes[name].kill()
            nodes[name].start()
            with nodes[name].client() as client:
                while True:
                    client.set(key, tombstone)
                    cas = int(client.gets(key)[1])
                    if cas >= cas_of(version):
                        break
                assert cas == cas_of(version)


def test_without_the_cluster_both_serve_what_either_has_seen(threads: SessionManager, nodes: Nodes) -> None:
    async def main() -> None:
        async with beside(threads) as loop:
            for server in nodes.values():
                server.kill()
            async with loop.request(session_id, "POST") as session:
                assert session["user"] == "ada"
                session["colour"] = "red"
        with threads.request(session_id) as session:
            assert dict(session) == {"user": "ada", "colour": "red"}

    session_id = new_session(threads)
    asyncio.run(main())


def test_a_manager_that_was_disconnected_goes_on_in_another_loop(threads: SessionManager) -> None:
    manager = AsyncSessionManager(threads.settings)
    session_id = new_session(threads)

    async def read() -> object:
        async with manager.request(session_id) as session:
            user = session["user"]
        await manager.disconnect()
        return user

    assert [asyncio.run(read()) for _ in range(2)] == ["ada", "ada"]


def test_what_one_has_put_on_the_black_list_can_be_taken_off_at_the_other(
    make_manager: Callable[..., SessionManager],
) -> None:
    class Unstorable:
        """A type that no serializer knows."""

    async def main() -> None:
        async with beside(threads) as loop:
            async with loop.request(None, "POST") as session:
                session["handle"] = Unstorable()
            ((name, type_name),) = threads.blacklist
            assert name == "handle"
            assert threads.blacklist.remove(name, type_name)
            assert list(loop.blacklist) == []

    threads = make_manager(on_unserializable="blacklist")
    asyncio.run(main())
