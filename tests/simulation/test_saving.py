"""Storing what a request changed, alone and against others."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import Event, SerializationError, Session, SessionTooLarge, SessionUnavailable
from msm_fast.engine.effects import Exchange
from msm_fast.engine.exchanging import ask
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def loaded(worker: Worker, session_id: str, **options: Any) -> Session:
    session = worker.load(session_id, **options)
    assert session is not None
    return session


def read(worker: Worker, session_id: str) -> dict[str, Any]:
    return dict(loaded(worker, session_id))


def test_a_new_session_to_which_nothing_was_written_is_not_stored(worker: Worker) -> None:
    session = worker.create()
    assert session.get("user") is None
    assert worker.save(session).status == "unchanged"
    assert worker.driver.exchanges == 0


def test_a_new_session_is_stored_on_its_node_and_a_backup_in_one_round_trip(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session = worker.create(user="ada")
    result = worker.save(session)
    assert driver.exchanges == 1
    assert result.status == "stored"
    assert result.node == home_of(session.id)
    assert holders(driver, session.id) == {result.node, *result.backups}
    assert len(result.backups) == 1


@pytest.mark.parametrize("replicas", [0, 1, 2, 8])
def test_there_are_as_many_backups_as_asked_for_and_nodes_allow(
    driver: SimulatedDriver, make_worker: MakeWorker, replicas: int
) -> None:
    session_id = make_worker(replicas=replicas).store(user="ada")
    assert len(holders(driver, session_id)) == min(replicas + 1, 3)


def test_a_changed_session_is_one_round_trip_to_load_and_one_to_save(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker().store(user="ada")
    before = driver.exchanges
    worker = make_worker()
    session = loaded(worker, session_id)
    session["user"] = "grace"
    assert worker.save(session).status == "stored"
    assert driver.exchanges == before + 2


def test_an_unchanged_session_is_not_written(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada", cart=["apple"])
    session = loaded(worker, session_id)
    before = driver.exchanges
    assert session["cart"] == ["apple"]
    session["user"] = "ada"
    assert worker.save(session).status == "unchanged"
    assert driver.exchanges == before


def test_a_change_inside_a_value_is_noticed(worker: Worker) -> None:
    session_id = worker.store(cart={"items": ["apple"]})
    session = loaded(worker, session_id)
    session["cart"]["items"].append("pear")
    assert worker.save(session).status == "stored"
    assert read(worker, session_id) == {"cart": {"items": ["apple", "pear"]}}


def test_removing_an_attribute_is_a_change(worker: Worker) -> None:
    session_id = worker.store(user="ada", cart=[])
    session = loaded(worker, session_id)
    del session["cart"]
    worker.save(session)
    assert read(worker, session_id) == {"user": "ada"}


def test_a_session_can_be_saved_again_and_again(worker: Worker) -> None:
    session = worker.create(n=0)
    for n in range(5):
        session["n"] = n
        worker.save(session)
    assert session.generation == 5
    assert read(worker, session.id) == {"n": 4}


def test_a_request_that_was_not_expected_to_write_may_write(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    session_id = make_worker().store(user="ada")
    worker = make_worker()
    session = loaded(worker, session_id, expect_write=False)
    session["user"] = "grace"
    assert worker.save(session).status == "stored"
    copies = [driver.nodes[n].server.peek(key_of(session_id)) for n in holders(driver, session_id)]
    assert len({copy.client_flags for copy in copies if copy}) == 1, "both copies are of this write"


# -- nodes that fail


@pytest.mark.parametrize("fault", ["refused", "reset", "timeout", "protocol"])
@pytest.mark.parametrize("carried_out", [False, True])
def test_a_save_whose_home_fails_is_stored_elsewhere_under_an_id_that_says_so(
    driver: SimulatedDriver, make_worker: MakeWorker, fault: Any, carried_out: bool
) -> None:
    worker = make_worker()
    session_id = worker.store(step=1)
    home = driver.nodes[home_of(session_id)]
    session = loaded(worker, session_id)
    session["step"] = 2
    home.fault, home.carries_out_before_failing = fault, carried_out
    result = worker.save(session)
    assert result.status == "stored"
    assert result.node != home_of(session_id)
    assert session.id_changed
    assert len(result.backups) == 1, "there are two nodes left"
    assert read(worker, session.id) == {"step": 2}


@pytest.mark.parametrize("fault", ["refused", "reset", "timeout", "protocol"])
def test_a_save_whose_backup_fails_finds_another_for_it(
    driver: SimulatedDriver, make_worker: MakeWorker, fault: Any
) -> None:
    worker = make_worker()
    session_id = worker.store(step=1)
    backup = backup_of(driver, session_id)
    session = loaded(worker, session_id)
    session["step"] = 2
    driver.nodes[backup].fault = fault
    result = worker.save(session)
    assert result.status == "stored"
    assert result.node == home_of(session_id)
    assert set(result.backups) == {"n1", "n2", "n3"} - {home_of(session_id), backup}


def test_so_does_one_that_loses_all_its_backups() -> None:
    names = ["n1", "n2", "n3", "n4", "n5"]
    driver = SimulatedDriver(names, VirtualClock())
    worker = Worker(driver, make_settings(5, replicas=2))
    session_id = worker.store(step=1)
    backups = holders(driver, session_id) - {home_of(session_id)}
    session = loaded(worker, session_id)
    session["step"] = 2
    for backup in backups:
        driver.nodes[backup].fault = "refused"
    assert set(worker.save(session).backups) == set(names) - backups - {home_of(session_id)}


def test_a_write_whose_answer_was_lost_is_known_by_its_nonce(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(step=1)
    home = driver.nodes[home_of(session_id)]
    session = loaded(worker, session_id)
    session["step"] = 2
    home.fault, home.carries_out_before_failing = "reset", True

    def heal_after_the_first(_: Exchange) -> None:
        if driver.exchanges == first + 1:
            home.fault = None

    first = driver.exchanges
    driver.before_exchange = heal_after_the_first
    result = worker.save(session)
    assert result.status == "stored"
    assert not session.id_changed, "one lost answer does not move a session"
    assert session.generation == 2
    assert worker.ctx.counters.snapshot().conflicts == 0


def test_an_acknowledged_save_survives_the_loss_of_any_one_node(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    for lost in ("n1", "n2", "n3"):
        session_id = make_worker().store(user="ada")
        driver.nodes[lost].fault = "refused"
        assert read(make_worker(), session_id) == {"user": "ada"}
        driver.nodes[lost].fault = None


def test_when_no_node_takes_it_the_save_says_so_within_its_budget(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session["user"] = "grace"
    for node in driver.nodes.values():
        node.fault = "timeout"
    started = driver.clock.monotonic()
    with pytest.raises(SessionUnavailable) as caught:
        worker.save(session)
    assert driver.clock.monotonic() - started <= 0.25 + 0.02
    assert session_id not in str(caught.value)


def test_an_old_home_that_others_still_reach_does_not_undo_a_save_that_moved_away(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(), make_worker()
    session_id = one.store(a=0, b=0)
    session, other = loaded(one, session_id), loaded(two, session_id)
    session["a"] = 1
    driver.nodes[home_of(session_id)].fault = "refused"  # from here
    one.save(session)
    driver.nodes[home_of(session_id)].fault = None  # but not from there
    other["b"] = 2
    assert two.save(other).status == "merged"
    assert read(make_worker(), session.id) == {"a": 1, "b": 2}
    assert read(two, session_id) == {"a": 1, "b": 2}


# -- copies that vanish


def test_a_copy_evicted_during_a_request_is_put_back(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(step=1)
    session = loaded(worker, session_id)
    driver.nodes[home_of(session_id)].server.evict(key_of(session_id))
    session["step"] = 2
    assert worker.save(session).status == "stored"
    assert read(worker, session_id) == {"step": 2}


def test_a_session_of_which_no_copy_is_left_is_not_brought_back(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(step=1)
    session = loaded(worker, session_id)
    for node in driver.nodes.values():
        node.server.restart()
    session["step"] = 2
    assert worker.save(session).status == "invalidated"
    assert worker.load(session_id) is None


def test_but_not_taken_for_ended_while_a_node_that_may_have_one_is_away(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(step=1)
    session = loaded(worker, session_id)
    backup = driver.nodes[backup_of(driver, session_id)]
    backup.fault = "refused"
    worker.driver.run(ask(worker.ctx))
    driver.nodes[home_of(session_id)].server.evict(key_of(session_id))
    session["step"] = 2
    with pytest.raises(SessionUnavailable):
        worker.save(session)


# -- serialization


class Unstorable:
    """A type that no serializer knows."""


def test_an_attribute_that_cannot_be_stored_stops_the_application_with_an_error(worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session["handle"] = Unstorable()
    with pytest.raises(SerializationError) as caught:
        worker.save(session)
    assert caught.value.attribute == "handle"
    assert caught.value.type_name is not None
    assert "Unstorable" in caught.value.type_name
    assert session_id not in str(caught.value)
    assert worker.ctx.is_stopped


def test_a_session_over_the_item_limit_is_refused_before_sending(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session["blob"] = bytes(1 << 20)
    before = driver.exchanges
    with pytest.raises(SessionTooLarge) as caught:
        worker.save(session)
    assert caught.value.size > caught.value.limit
    assert driver.exchanges == before
    driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    assert holders(driver, session_id), "what was stored is still there"


def test_a_new_session_whose_id_is_taken_gets_another(worker: Worker) -> None:
    taken = worker.store(user="ada")
    session = worker.create(user="eve")
    session.state.session_id = loaded(worker, taken).state.session_id
    assert worker.save(session).status == "stored"
    assert key_of(session.id) != key_of(taken)
    assert read(worker, taken) == {"user": "ada"}
    assert read(worker, session.id) == {"user": "eve"}


def test_a_cas_value_from_before_a_restart_is_not_used_after_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    one, two = make_worker(replicas=0), make_worker(replicas=0)
    session_id = one.store(n=0)
    slow = loaded(one, session_id)
    slow["slow"] = True
    node = driver.nodes[home_of(session_id)]
    item = node.server.peek(key_of(session_id))
    assert item is not None
    node.server.restart()
    rival = two.create(rival=True)
    rival.state.session_id = slow.state.session_id
    assert two.save(rival).status == "stored"
    repeated = node.server.peek(key_of(session_id))
    assert repeated is not None
    assert repeated.cas == item.cas
    assert one.save(slow).status == "merged"
    assert read(two, session_id) == {"n": 0, "rival": True, "slow": True}
    assert one.ctx.counters.snapshot().restarts == 1


def test_that_a_node_loses_its_memory_again_and_again_is_told_once_a_minute(
    driver: SimulatedDriver, worker: Worker
) -> None:
    """One that is full and evicts nothing has no room for the token of its life: each connection begins one."""
    session_id = worker.store(n=0)
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    for _ in range(3):
        driver.nodes[home_of(session_id)].server.life += 1
        assert read(worker, session_id) == {"n": 0}
    assert [event.kind for event in events] == ["node_restarted"]
    assert worker.ctx.counters.snapshot().restarts == 3
    driver.clock.advance(61)
    driver.nodes[home_of(session_id)].server.life += 1
    assert read(worker, session_id) == {"n": 0}
    assert [event.kind for event in events] == ["node_restarted"] * 2


def test_that_a_node_that_was_down_comes_back_empty_is_told_each_time(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(n=0)
    home = driver.nodes[home_of(session_id)]
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    for _ in range(2):
        home.fault = "refused"
        worker.load(session_id)
        home.server.restart()
        home.fault = None
        worker.probe(home_of(session_id))
    told = [event.kind for event in events if event.kind.startswith("node_")]
    assert told == ["node_down", "node_restarted", "node_up"] * 2
