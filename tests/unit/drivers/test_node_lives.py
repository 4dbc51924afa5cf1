"""Which life a node is in, by the token that it gives."""

import logging

import pytest

from msm_fast.drivers.node_lives import NodeLives


@pytest.fixture
def lives() -> NodeLives:
    lives = NodeLives()
    lives.nodes = ("n1", "n2")
    return lives


def test_a_life_lasts_as_long_as_the_node_gives_the_same_token(lives: NodeLives) -> None:
    assert [lives.number("n1", token) for token in (b"a", b"a", b"b", b"a")] == [1, 1, 2, 3]
    assert lives.is_current("n1", 3)
    assert not lives.is_current("n1", 1)


def test_a_node_that_gives_no_token_begins_a_new_life_each_time(lives: NodeLives) -> None:
    assert [lives.number("n1", None) for _ in range(3)] == [1, 2, 3]


def test_two_nodes_of_one_token_are_told_once_to_be_one_server(
    lives: NodeLives, caplog: pytest.LogCaptureFixture
) -> None:
    for node in ("n1", "n2", "n1", "n2"):
        lives.number(node, b"the same")
    (told,) = caplog.records
    assert told.levelno == logging.WARNING
    assert "n1 and n2 are one server" in told.getMessage()


def test_a_server_that_has_another_name_now_is_no_second_one(
    lives: NodeLives, caplog: pytest.LogCaptureFixture
) -> None:
    lives.number("n1", b"the same")
    lives.nodes = ("renamed",)
    lives.number("renamed", b"the same")
    for node in ("n1", "n2"):
        lives.number(node, None)
    assert not caplog.records
