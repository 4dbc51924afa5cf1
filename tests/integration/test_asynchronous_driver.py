"""The driver of an event loop alone, on real memcached processes."""

import asyncio

import pytest

from msm_fast import Node, Timeouts
from msm_fast._core import wire
from msm_fast.drivers.asynchronous import AsyncDriver
from msm_fast.engine.effects import Batch, Budget
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.memcached


def test_of_nodes_that_change_in_a_loop_those_that_stay_keep_their_connections_and_the_others_lose_them(
    nodes: Nodes,
) -> None:
    known = {name: Node(name, "127.0.0.1", server.port) for name, server in nodes.items()}
    batches = [Batch(name, [wire.noop()]) for name in known]

    async def change() -> None:
        driver = AsyncDriver(known, Timeouts())
        await driver.exchange(batches, Budget(5.0))
        links = dict(driver._links)
        opened = {name: set(link._open) for name, link in links.items()}
        driver.change_nodes({"n1": known["n1"], "n2": Node("n2", "127.0.0.1", known["n3"].port)})
        assert driver._links["n1"] is links["n1"]
        for name in ("n2", "n3"):
            await asyncio.wait_for(next(iter(opened[name])).has_ended, 5)
            assert driver._links.get(name) is not links[name]
        await driver.exchange(batches[:2], Budget(5.0))
        assert links["n1"]._open == opened["n1"]
        await driver.close(5)
        assert not links["n1"].is_open

    asyncio.run(change())
