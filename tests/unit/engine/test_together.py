"""Flows that are carried out side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from msm_fast._core import wire
from msm_fast._core.replies import Reply
from msm_fast.engine.effects import Batch, Effect, Exchange, Flow, NodeFailure, Outcome, Replies, Sleep
from msm_fast.engine.together import together

KEYS = (b"a", b"b", b"c")


def ask(key: bytes, *nodes: str, life: int | None = None) -> Flow[list[Outcome]]:
    """Ask nodes for an item and return the answers."""
    outcomes: list[Outcome] = yield Exchange([Batch(node, [wire.get(key)], life) for node in nodes])
    return outcomes


def answered(effect: Effect) -> list[Outcome]:
    """Answer each command by its key and node."""
    assert isinstance(effect, Exchange)
    return [
        Replies([Reply("VA", command.key + batch.node.encode()) for command in batch.commands], life=7, compares=True)
        for batch in effect.batches
    ]


def values(outcomes: Sequence[Outcome] | Exception) -> list[list[bytes | None]]:
    assert not isinstance(outcomes, Exception)
    return [[reply.value for reply in outcome] for outcome in outcomes if not isinstance(outcome, NodeFailure)]


def finish(flow: Flow[list[list[Outcome] | Exception]], answer: object) -> list[list[Outcome] | Exception]:
    """Give the last answer and return what the flow returns."""
    with pytest.raises(StopIteration) as ended:
        flow.send(answer)
    results: list[list[Outcome] | Exception] = ended.value.value
    return results


def test_what_they_want_at_the_same_time_is_one_batch_for_each_node() -> None:
    flow = together([ask(b"a", "n1", "n2"), ask(b"b", "n2", "n3"), ask(b"c", "n1")])
    effect = next(flow)
    assert isinstance(effect, Exchange)
    assert {batch.node: [command.key for command in batch.commands] for batch in effect.batches} == {
        "n1": [b"a", b"c"],
        "n2": [b"a", b"b"],
        "n3": [b"b"],
    }
    results = finish(flow, answered(effect))
    assert [values(result) for result in results] == [[[b"an1"], [b"an2"]], [[b"bn2"], [b"bn3"]], [[b"cn1"]]]
    first = results[0]
    assert not isinstance(first, Exception)
    assert all(isinstance(outcome, Replies) and (outcome.life, outcome.compares) == (7, True) for outcome in first)


def test_what_is_for_one_life_of_a_node_only_does_not_go_with_the_rest() -> None:
    flow = together([ask(b"a", "n1", life=7), ask(b"b", "n1"), ask(b"c", "n1", life=7)])
    effect = next(flow)
    assert isinstance(effect, Exchange)
    assert [(batch.life, len(batch.commands)) for batch in effect.batches] == [(7, 2), (None, 1)]
    restarted = NodeFailure("restarted", False, "it was")
    results = finish(flow, [restarted, *answered(Exchange(effect.batches[1:]))])
    assert results[0] == results[2] == [restarted]
    assert values(results[1]) == [[b"bn1"]]


def test_each_goes_on_as_long_as_it_wants() -> None:
    def ask_twice() -> Flow[list[Outcome]]:
        return [*(yield from ask(b"a", "n1")), *(yield from ask(b"b", "n2"))]

    flow = together([ask_twice(), ask(b"c", "n1")])
    second = flow.send(None)
    second = flow.send(answered(second))
    assert isinstance(second, Exchange)
    assert [batch.node for batch in second.batches] == ["n2"]
    results = finish(flow, answered(second))
    assert [values(result) for result in results] == [[[b"an1"], [b"bn2"]], [[b"cn1"]]]


@pytest.mark.parametrize("kind", ["timeout", "protocol"])
def test_a_node_that_does_not_answer_has_failed_once_whoever_asked(kind: str) -> None:
    flow = together([ask(key, "n1") for key in KEYS])
    next(flow)
    results = finish(flow, [NodeFailure(kind, True, "no answer in time")])  # type: ignore[arg-type]
    assert [result[0].kind for result in results] == [kind, "deadline", "deadline"]  # type: ignore[index, union-attr]
    assert all(result[0].sent for result in results)  # type: ignore[index, union-attr]


def test_a_connection_that_was_lost_may_be_tried_again_by_each() -> None:
    flow = together([ask(key, "n1") for key in KEYS])
    next(flow)
    lost = NodeFailure("reset", True, "connection lost")
    assert finish(flow, [lost]) == [[lost]] * 3


def test_what_one_raises_is_that_one_s_alone() -> None:
    def broken() -> Flow[list[Outcome]]:
        yield Exchange([Batch("n1", [wire.get(b"a")])])
        raise ValueError("odd")

    flow = together([broken(), ask(b"b", "n1")])
    results = finish(flow, answered(next(flow)))
    assert isinstance(results[0], ValueError)
    assert values(results[1]) == [[b"bn1"]]


def test_who_sleeps_is_woken_in_time_and_holds_nobody_up() -> None:
    woken: list[tuple[str, bool]] = []

    def sleep(name: str, seconds: float) -> Flow[list[Outcome]]:
        woken.append((name, (yield Sleep(seconds))))
        return []

    flow = together([sleep("long", 3.0), ask(b"b", "n1"), sleep("short", 1.0)])
    effect = flow.send(answered(next(flow)))
    assert (effect, woken) == (Sleep(1.0), [])
    assert flow.send(True) == Sleep(2.0)
    assert woken == [("short", True)]
    finish(flow, True)
    assert woken == [("short", True), ("long", True)]


def test_when_the_time_is_over_it_is_over_for_all() -> None:
    woken: list[bool] = []

    def sleep(seconds: float) -> Flow[list[Outcome]]:
        woken.append((yield Sleep(seconds)))
        return []

    flow = together([sleep(3.0), sleep(1.0)])
    next(flow)
    finish(flow, False)
    assert woken == [False, False]


def test_broken_off_it_breaks_all_of_them_off() -> None:
    closed: list[int] = []

    def wait(n: int) -> Flow[list[Outcome]]:
        try:
            yield Sleep(1.0)
        finally:
            closed.append(n)
        return []

    flow = together([wait(0), wait(1)])
    next(flow)
    flow.close()
    assert closed == [0, 1]
