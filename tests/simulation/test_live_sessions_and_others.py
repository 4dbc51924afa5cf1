"""Live sessions of one worker that other workers have changed, ended or moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import AttributeMap, SessionId
from msm_fast.session import SessionState, Stored
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker, fail, stored
from tests.simulation.test_loading import home_of
from tests.simulation.test_sticky import change, loaded, make_worker, worker

__all__ = ["make_worker", "worker"]

MakeWorker = Callable[..., StickyWorker]


def test_what_was_saved_while_a_write_met_another_worker_s_is_kept_on_both_sides(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(a=0, b=0, c=0)
    one.catch_up()
    loaded(two, session_id)
    change(one, session_id, a=1)
    one.catch_up()
    change(two, session_id, b=2)
    job = two.next_job()
    assert job is not None
    driver.before_exchange = lambda effect: change(two, session_id, c=3) and None  # type: ignore[func-returns-value]
    two.do(job)
    driver.before_exchange = None
    assert dict(loaded(two, session_id)) == {"a": 1, "b": 2, "c": 3}
    two.catch_up()
    assert stored(driver, two, session_id) == {"a": 1, "b": 2, "c": 3}


def test_a_client_from_elsewhere_is_served_from_memory_while_the_nodes_of_its_session_are_away(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(n=0)
    one.catch_up()
    elsewhere = loaded(two, session_id).id
    fail(driver, "timeout")
    assert loaded(one, elsewhere)["n"] == 0


@pytest.mark.parametrize("is_dirty", [False, True])
def test_a_session_that_was_ended_elsewhere_is_not_served_to_a_client_who_comes_back(
    make_worker: MakeWorker, is_dirty: bool
) -> None:
    one, two = make_worker(route="w1"), make_worker(route="w2")
    session_id = one.store(n=0)
    one.catch_up()
    if is_dirty:
        change(one, session_id, n=1)
    logout = loaded(two, session_id)
    elsewhere = logout.id
    logout.invalidate()
    two.save(logout)
    assert one.load(elsewhere) is None
    assert one.load(session_id) is None


def test_a_takeover_leaves_a_node_that_is_for_failover_here(make_worker: MakeWorker) -> None:
    one = make_worker(route="w1", n_nodes=2, failover_nodes=("n1",), replicas=0)
    two = make_worker(route="w2", n_nodes=2, failover_nodes=("n2",), replicas=0)
    session_id = one.store(n=0)
    assert home_of(session_id) == "n2"
    one.catch_up()
    session = loaded(two, session_id)
    assert home_of(session.id) == "n1"
    two.save(session)
    two.catch_up()
    assert dict(loaded(make_worker(n_nodes=2), session.id)) == {"n": 0}


def found(worker: StickyWorker, session_id: str, generation: int, nonce: int, **attributes: Any) -> SessionState:
    """Return the session as a request found it: by that write, which was made over the one of nonce 1."""
    parsed = SessionId.parse(session_id)
    assert parsed is not None
    content = AttributeMap(attributes, serializer=worker.ctx.serializers)
    body, _ = content.encode()
    stored_as = Stored(generation, (nonce, 1), {}, body)
    return SessionState(
        session_id=parsed,
        attributes=AttributeMap.decode(body, serializer=worker.ctx.serializers),
        created_ms=0,
        accessed_ms=0,
        max_inactive_s=1800,
        absolute_lifetime_s=0,
        stored=stored_as,
        body=body,
    )


@pytest.mark.parametrize(("generation", "both"), [(5, "mine"), (6, "theirs")])
def test_what_two_requests_have_found_of_writes_side_by_side_is_joined_and_stored(
    worker: StickyWorker, generation: int, both: str
) -> None:
    """Two workers died in the middle of their writes, and each has left a copy on another node."""
    live = worker.sticky._live
    session_id = str(SessionId.generate("n1"))
    first = live.adopt(found(worker, session_id, 5, 21, both="mine", a=1))
    second = live.adopt(found(worker, session_id, generation, 22, both="theirs", b=2))
    assert first is second is not None
    assert dict(second.attributes) == {"both": both, "a": 1, "b": 2}
    assert second.must_store


def test_what_is_still_to_be_written_goes_on_top_of_both(worker: StickyWorker) -> None:
    live = worker.sticky._live
    session_id = str(SessionId.generate("n1"))
    first = live.adopt(found(worker, session_id, 5, 21, a=1, gone=True))
    assert first is not None
    del first.attributes["gone"]
    first.body, _ = first.attributes.encode()
    first.revision += 1
    second = live.adopt(found(worker, session_id, 5, 22, b=2, gone=True))
    assert second is not None
    assert dict(second.attributes) == {"a": 1, "b": 2}


def test_with_on_conflict_error_what_was_stored_elsewhere_counts(make_worker: MakeWorker) -> None:
    one, two = make_worker(on_conflict="error"), make_worker(on_conflict="error")
    session_id = one.store(n=0)
    one.catch_up()
    loaded(two, session_id)
    change(one, session_id, n=1)
    one.catch_up()
    change(two, session_id, n=2)
    two.catch_up()
    assert two.ctx.counters.snapshot().dropped == 1
    assert loaded(two, session_id)["n"] == 1
