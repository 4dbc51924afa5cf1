import pytest

from msm_fast.engine.limits import ItemLimits

NODES = ["n1", "n2", "n3"]
DEFAULT = 1_048_064


@pytest.mark.parametrize("nodes", [[], NODES])
def test_memcacheds_default_holds_before_any_node_was_met(nodes: list[str]) -> None:
    assert ItemLimits().record_bytes(nodes) == DEFAULT


def test_the_node_that_takes_least_decides() -> None:
    limits = ItemLimits()
    limits.learn("n1", 1 << 20)
    limits.learn("n2", 1 << 19)
    assert limits.record_bytes(NODES) == limits.least_record_bytes == (1 << 19) - 512


def test_a_node_that_is_not_configured_any_more_decides_nothing() -> None:
    limits = ItemLimits()
    limits.learn("n9", 1 << 19)
    assert limits.record_bytes(NODES) == DEFAULT


def test_a_node_that_takes_more_than_the_default_changes_nothing() -> None:
    limits = ItemLimits()
    limits.learn("n1", 8 << 20)
    assert limits.record_bytes(NODES) == DEFAULT


def test_a_node_that_was_restarted_with_another_limit_is_believed() -> None:
    limits = ItemLimits()
    limits.learn("n1", 1 << 19)
    limits.learn("n1", 1 << 20)
    assert limits.record_bytes(NODES) == DEFAULT


@pytest.mark.parametrize("item_bytes", [0, 1023])
def test_a_limit_that_no_memcached_can_have_is_not_believed(item_bytes: int) -> None:
    limits = ItemLimits()
    limits.learn("n1", item_bytes)
    assert limits.record_bytes(NODES) == DEFAULT
