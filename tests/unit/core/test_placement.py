import json
import math
import time
from collections import Counter
from pathlib import Path

import pytest

from msm_fast._core.placement import RendezvousHash
from msm_fast.errors import ConfigurationError
from tests.reference import placement as reference

GOLDEN = Path(__file__).parents[2] / "golden" / "placement.json"
KEYS = [f"session-{i:06d}" for i in range(20_000)]
TEN = [f"n{i}" for i in range(10)]


def test_ranks_are_those_of_the_committed_vectors():
    vectors = json.loads(GOLDEN.read_text())
    assert len(vectors) > 100
    for vector in vectors:
        assert RendezvousHash(vector["nodes"]).ranked(vector["key"]) == vector["ranked"]


def test_the_order_in_which_nodes_are_given_does_not_matter():
    forward, backward = RendezvousHash(TEN), RendezvousHash(reversed(TEN))
    assert forward.nodes == backward.nodes == tuple(TEN)
    assert all(forward.ranked(key) == backward.ranked(key) for key in KEYS[:500])


@pytest.mark.parametrize("weigh", [list, lambda ids: dict.fromkeys(ids, 2.5)])
def test_ids_of_a_subclass_of_str_rank_as_their_text(weigh):
    class Name(str):
        __slots__ = ()

        def __str__(self):
            return "another text"

    named = RendezvousHash(weigh([Name(node) for node in TEN]))
    assert named.ranked("key") == RendezvousHash(TEN).ranked("key")
    assert {type(node) for node in named.nodes} == {str}


def test_equal_weights_rank_as_no_weights():
    plain, weighted = RendezvousHash(TEN), RendezvousHash(dict.fromkeys(TEN, 3.5))
    assert plain.nodes_for(KEYS) == weighted.nodes_for(KEYS)


def test_text_ranks_as_its_utf8():
    nodes = RendezvousHash(TEN)
    for key in ("", "abc", "schlüssel", "\N{SNOWMAN}", "x" * 5000):
        assert nodes.ranked(key) == nodes.ranked(key.encode())


@pytest.mark.parametrize("n", [2, 3, 10, 50])
def test_keys_spread_evenly_over_nodes(n):
    load = Counter(RendezvousHash([f"n{i}" for i in range(n)]).nodes_for(KEYS))
    mean = len(KEYS) / n
    # Five standard deviations of what chance alone does to even hashing.
    bound = 5 * math.sqrt(mean * (1 - 1 / n))
    assert len(load) == n
    assert all(abs(count - mean) < bound for count in load.values())


@pytest.mark.parametrize("make", ["session-{:07d}".format, "{:032x}".format, lambda i: i.to_bytes(16, "big")])
def test_a_million_keys_on_ten_nodes_differ_from_the_mean_by_less_than_two_percent(make):
    load = Counter(RendezvousHash(TEN).nodes_for(map(make, range(1_000_000))))
    assert max(load.values()) <= 1.02 * 100_000
    assert min(load.values()) >= 0.98 * 100_000


def test_each_weight_has_its_share_of_a_million_keys_within_two_percent():
    weights = {node: 1.0 + i % 4 for i, node in enumerate(TEN)}
    load = Counter(RendezvousHash(weights).nodes_for(map(str, range(1_000_000))))
    for node, weight in weights.items():
        assert load[node] == pytest.approx(1_000_000 * weight / sum(weights.values()), rel=0.02)


def test_second_ranks_spread_evenly_too():
    nodes = RendezvousHash(TEN)
    load = Counter(nodes.ranked(key, 2)[1] for key in KEYS)
    assert all(abs(count - 2000) < 5 * math.sqrt(1800) for count in load.values())


def test_weights_share_keys_in_proportion():
    weights = {"small": 1, "middle": 2, "big": 5}
    load = Counter(RendezvousHash(weights).nodes_for(KEYS))
    for node, weight in weights.items():
        share = weight / 8
        assert abs(load[node] - len(KEYS) * share) < 5 * math.sqrt(len(KEYS) * share * (1 - share))


def test_only_ratios_of_weights_count():
    weights = {"a": 1.0, "b": 3.0, "c": 0.5}
    for factor in (2.0**-1000, 2.0**1000):
        scaled = {node: weight * factor for node, weight in weights.items()}
        assert RendezvousHash(weights).nodes_for(KEYS[:2000]) == RendezvousHash(scaled).nodes_for(KEYS[:2000])


@pytest.mark.parametrize("nodes", [TEN, {node: 1.0 + i for i, node in enumerate(TEN)}])
def test_a_removed_node_moves_only_its_own_keys(nodes):
    before, after = RendezvousHash(nodes), RendezvousHash(reference.without(nodes, "n4"))
    for key, old, new in zip(KEYS, before.nodes_for(KEYS), after.nodes_for(KEYS), strict=True):
        assert new == (before.ranked(key, 2)[1] if old == "n4" else old)


def test_a_heavier_node_only_gains_keys():
    before, after = RendezvousHash({"a": 1, "b": 2, "c": 3}), RendezvousHash({"a": 1, "b": 4, "c": 3})
    pairs = zip(before.nodes_for(KEYS), after.nodes_for(KEYS), strict=True)
    assert {new for old, new in pairs if old != new} == {"b"}


def test_a_node_that_is_added_only_takes_keys():
    before, after = RendezvousHash(TEN), RendezvousHash([*TEN, "n10"])
    pairs = zip(before.nodes_for(KEYS), after.nodes_for(KEYS), strict=True)
    assert {new for old, new in pairs if old != new} == {"n10"}


def test_the_cost_of_a_key_grows_as_the_number_of_nodes():
    def cost_s(n):
        nodes = RendezvousHash([f"n{i}" for i in range(n)])
        return min(timed(nodes) for _ in range(7))

    def timed(nodes):
        start = time.perf_counter()
        nodes.nodes_for(KEYS[:300])
        return time.perf_counter() - start

    # Ten times the nodes: a hundred times the cost would be quadratic.
    assert cost_s(5000) < 40 * cost_s(500)


def test_many_nodes_are_ranked_as_few_are():
    many = [f"n{i:03d}" for i in range(300)]
    nodes = RendezvousHash(many)
    for key in KEYS[:20]:
        assert nodes.ranked(key) == reference.ranked(many, key)
        assert nodes.ranked(key, 5) == nodes.ranked(key)[:5]


def test_ranked_returns_as_many_as_asked_for():
    nodes = RendezvousHash(TEN)
    ranks = nodes.ranked("key")
    assert sorted(ranks) == TEN
    assert [nodes.ranked("key", count) for count in range(12)] == [ranks[:count] for count in range(12)]
    assert nodes.ranked("key", 10**30) == ranks
    assert ranks[0] == nodes.node_for("key")
    with pytest.raises(ValueError, match="count"):
        nodes.ranked("key", -1)


def test_the_bulk_form_takes_any_iterable():
    nodes = RendezvousHash(TEN)
    assert nodes.nodes_for(iter(KEYS[:100])) == [nodes.node_for(key) for key in KEYS[:100]]
    assert nodes.nodes_for([]) == []


def test_one_node_takes_every_key():
    nodes = RendezvousHash(["only"])
    assert len(nodes) == 1
    assert set(nodes.nodes_for(KEYS[:100])) == {"only"}


@pytest.mark.parametrize("key", [None, 1, bytearray(b"a"), memoryview(b"a"), ["a"]])
def test_a_key_of_another_type_is_a_type_error(key):
    nodes = RendezvousHash(TEN)
    for call in (nodes.node_for, nodes.ranked, lambda key: nodes.nodes_for(["a", key])):
        with pytest.raises(TypeError, match="str or bytes"):
            call(key)


def test_a_key_with_a_lone_surrogate_is_a_unicode_error():
    with pytest.raises(UnicodeEncodeError):
        RendezvousHash(TEN).node_for("\ud800")


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        {},
        ["a", "b", "a"],
        ["a", ""],
        ["a", None],
        ["a", b"b"],
        ["a\ud800"],
        "n1,n2",
        b"n1",
        {"a": 0},
        {"a": -1.0},
        {"a": math.nan},
        {"a": math.inf},
        {"a": 10**400},
        {"a": None},
        {"a": "heavy"},
        {"": 1.0},
    ],
)
def test_nodes_that_make_no_sense_are_a_configuration_error(nodes):
    with pytest.raises(ConfigurationError):
        RendezvousHash(nodes)
