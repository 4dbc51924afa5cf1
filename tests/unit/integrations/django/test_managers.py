"""What an operator asks of a process's manager holds for all its views, whether in threads or in event loops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from msm_fast import AsyncSessionManager, DistributionState
from msm_fast.integrations.django import SessionStore, process_manager
from msm_fast.integrations.django.managers import managers
from tests.django_site import serve

NODES = "n1:127.0.0.1:1,n2:127.0.0.1:2"
"""Nothing listens there."""
OTHERS = "n2:127.0.0.1:2,n3:127.0.0.1:3"


@pytest.fixture(autouse=True)
def site() -> Iterator[None]:
    with serve("threads", MSM_FAST={"nodes": NODES, "on_unserializable": "stop_distribution"}):
        yield


def nodes_of(manager: AsyncSessionManager) -> list[tuple[str, bool]]:
    return [(node.node_id, node.is_draining) for node in manager.nodes()]


async def in_a_thread(operate: Callable[[], object]) -> None:
    """Do what an operator does, and let the loop hear of it."""
    await asyncio.to_thread(operate)
    await asyncio.sleep(0)


def test_nodes_that_are_changed_are_changed_in_event_loops_too() -> None:
    async def look() -> None:
        manager = managers().for_loop()
        await in_a_thread(lambda: process_manager().drain("n1"))
        assert nodes_of(manager) == [("n1", True), ("n2", False)]
        await in_a_thread(lambda: process_manager().set_nodes(OTHERS, failover_nodes="n3"))
        assert nodes_of(manager) == [("n2", False), ("n3", False)]
        assert manager.settings.failover_nodes == process_manager().settings.failover_nodes != ()

    asyncio.run(look())


def test_event_loops_that_begin_later_begin_with_the_nodes_of_now() -> None:
    async def look() -> list[tuple[str, bool]]:
        return nodes_of(managers().for_loop())

    process_manager().set_nodes(OTHERS)
    process_manager().drain("n2")
    assert asyncio.run(look()) == [("n2", True), ("n3", False)]
    process_manager().drain("n2", False)
    assert asyncio.run(look()) == [("n2", False), ("n3", False)], "its manager has been there before"


def test_distribution_that_is_stopped_is_stopped_in_event_loops_too_until_it_is_started_again() -> None:
    async def look() -> None:
        distribution = managers().for_loop().distribution
        await in_a_thread(process_manager().distribution.stop)
        assert distribution.state is DistributionState.STOPPED
        await in_a_thread(process_manager().distribution.start)
        assert distribution.state is not DistributionState.STOPPED

    asyncio.run(look())


def test_distribution_that_a_value_stops_in_an_event_loop_is_stopped_everywhere() -> None:
    async def spoil() -> None:
        store = SessionStore()
        await store.aset("bad", object())
        await store.asave()

    asyncio.run(spoil())
    assert process_manager().distribution.state is DistributionState.STOPPED
