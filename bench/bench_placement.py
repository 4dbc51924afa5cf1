"""Which node a session goes to."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import xxhash
from pymemcache.client.rendezvous import RendezvousHash as PymemcacheRendezvousHash

from bench.conftest import Measure
from bench.rivals import rival
from bench.targets import NODE_AND_BACKUP, NODE_OF_KEY
from msm_fast import RendezvousHash
from tests.reference import placement as reference

NODES = [f"n{i}" for i in range(10)]
KEYS = [f"{random.Random(i).getrandbits(128):032x}" for i in range(1000)]
FLOOR = "floor: one xxh3_64_intdigest"


def keys_for(contender: str) -> Sequence[str | bytes]:
    """Return text, as ids are; for the floor bytes, which is all that every release of xxhash takes."""
    return [key.encode() for key in KEYS] if contender == FLOOR else KEYS


def ring() -> Any:
    return rival("uhashring").HashRing(nodes=NODES)


NODE_FOR: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "msm_fast": lambda: RendezvousHash(NODES).node_for,
    "uhashring": lambda: ring().get_node,
    "pymemcache RendezvousHash": lambda: PymemcacheRendezvousHash(list(NODES)).get_node,
    FLOOR: lambda: xxhash.xxh3_64_intdigest,
}


@pytest.mark.parametrize("contender", NODE_FOR)
def test_node_for(contender: str, measure: Measure) -> None:
    node_for = NODE_FOR[contender]()
    keys = keys_for(contender)
    answers = [node_for(key) for key in keys]
    if contender == "msm_fast":
        assert answers == [reference.ranked(NODES, key)[0] for key in keys]
    elif contender != FLOOR:
        assert set(answers) == set(NODES)
    measure(NODE_OF_KEY, contender, lambda: deque(map(node_for, keys), 0), len(keys))


def ours_ranked() -> Callable[[str], list[str]]:
    placement = RendezvousHash(NODES)
    return lambda key: placement.ranked(key, 2)


def uhashring_ranked() -> Callable[[str], list[str]]:
    nodes = ring()
    return lambda key: [entry["nodename"] for entry in nodes.range(key, size=2)]


RANKED: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "msm_fast": ours_ranked,
    "uhashring range": uhashring_ranked,
    FLOOR: lambda: xxhash.xxh3_64_intdigest,
}


@pytest.mark.parametrize("contender", RANKED)
def test_ranked(contender: str, measure: Measure) -> None:
    ranked = RANKED[contender]()
    keys = keys_for(contender)
    answers = [ranked(key) for key in keys]
    if contender == "msm_fast":
        assert answers == [reference.ranked(NODES, key)[:2] for key in keys]
    elif contender != FLOOR:
        assert all(len(set(answer)) == 2 for answer in answers)
    measure(NODE_AND_BACKUP, contender, lambda: deque(map(ranked, keys), 0), len(keys))
