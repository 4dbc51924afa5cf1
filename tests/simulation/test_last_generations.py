"""Sessions whose generation can hardly grow: whoever can write to memcached, which nothing signs, may put one there."""

from collections.abc import Callable

import pytest

from msm_fast import Reconnect
from msm_fast._core.record import encode_record
from tests.reference.record import LIMIT, encode_frame
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import LOCAL, change, heal, lose
from tests.simulation.test_loading import holders, home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]
LAST = LIMIT - 1
NEAR_THE_LAST = pytest.mark.parametrize("generation", [LAST, LAST - 1, LAST - 65536])


def forge(driver: SimulatedDriver, session_id: str, generation: int) -> None:
    """Put a record of that generation in the place of each copy."""
    record = encode_record(
        key_of(session_id),
        encode_frame("user", 0, b"\xa3ada"),
        generation=generation,
        created_ms=0,
        accessed_ms=0,
        max_inactive_s=1800,
        lineage=(77,),
    )
    for node in holders(driver, session_id):
        item = driver.nodes[node].server.peek(key_of(session_id))
        assert item is not None
        item.value, item.client_flags = record, 77


@NEAR_THE_LAST
def test_it_is_read_saved_merged_and_ended_as_any_other(
    driver: SimulatedDriver, make_worker: MakeWorker, generation: int
) -> None:
    session_id = make_worker().store(user="ada")
    forge(driver, session_id, generation)
    one, two = make_worker(), make_worker()
    for step in range(3):
        mine, theirs = loaded(one, session_id), loaded(two, session_id)
        mine["a"], theirs["b"] = step, step
        assert two.save(theirs).status == "stored"
        assert one.save(mine).status == "merged"
        assert read(two, session_id) == {"user": "ada", "a": step, "b": step}
        assert mine.generation <= LAST
    ended = loaded(one, session_id)
    ended.invalidate()
    assert one.save(ended).status == "invalidated"
    assert two.load(session_id) is None


@NEAR_THE_LAST
def test_it_moves_when_its_node_is_lost(driver: SimulatedDriver, make_worker: MakeWorker, generation: int) -> None:
    session_id = make_worker().store(user="ada")
    forge(driver, session_id, generation)
    one, two = make_worker(), make_worker()
    driver.nodes[home_of(session_id)].fault = "refused"
    session = loaded(one, session_id)
    session["a"] = 1
    assert one.save(session).status == "stored"
    assert home_of(session.id) != home_of(session_id)
    assert change(two, session.id, b=2) == "stored"
    assert read(one, session.id) == {"user": "ada", "a": 1, "b": 2}


@NEAR_THE_LAST
@pytest.mark.parametrize("on_reconnect", ["discard", "replay"])
def test_it_is_kept_here_in_an_outage_and_the_cluster_has_it_afterwards(
    driver: SimulatedDriver, make_worker: MakeWorker, generation: int, on_reconnect: str
) -> None:
    session_id = make_worker().store(user="ada")
    forge(driver, session_id, generation)
    worker = make_worker(**LOCAL, reconnect=Reconnect(on_reconnect=on_reconnect))  # type: ignore[arg-type]
    assert change(worker, session_id, step=0) == "stored"
    lose(driver, worker)
    for step in (1, 2):
        assert change(worker, session_id, step=step) == "local"
        assert read(worker, session_id) == {"user": "ada", "step": step}
    heal(driver, worker)
    step = 2 if on_reconnect == "replay" else 0
    assert read(make_worker(), session_id) == {"user": "ada", "step": step}
    assert change(worker, session_id, step=3) == "stored"
    assert read(make_worker(), session_id) == {"user": "ada", "step": 3}
