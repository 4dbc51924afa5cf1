"""Finding a session while nodes fail, and when they are back."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest

from msm_fast import Retry, SessionId, SessionUnavailable
from msm_fast.engine.effects import Exchange, FailureKind
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import backup_of, holders, home_of, key_of
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


@pytest.mark.parametrize("fault", ["refused", "reset", "timeout", "protocol", "unsupported"])
def test_when_the_home_fails_the_backup_serves_and_the_id_names_its_new_node(
    driver: SimulatedDriver, make_worker: MakeWorker, fault: str
) -> None:
    worker = make_worker()
    session_id = worker.store(user="ada")
    driver.nodes[home_of(session_id)].fault = fault  # type: ignore[assignment]
    session = worker.load(session_id)
    assert session is not None
    assert session["user"] == "ada"
    assert session.id_changed
    assert key_of(session.id) == key_of(session_id)
    assert home_of(session.id) == backup_of(driver, session_id)
    assert worker.save(session).status == "stored", "it is stored there though nothing was changed"
    assert len(holders(driver, session.id) - {home_of(session_id)}) == 2, "with a backup again"


def test_two_workers_that_relocate_choose_the_same_node(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    session_id = make_worker().store(user="ada")
    driver.nodes[home_of(session_id)].fault = "refused"
    sessions = [make_worker().load(session_id) for _ in range(4)]
    assert len({session.id for session in sessions if session}) == 1


def test_a_node_that_is_known_to_be_down_costs_nothing(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    driver.nodes[home_of(session_id)].fault = "refused"
    worker.load(session_id)
    batches, exchanges = driver.nodes[home_of(session_id)].batches, driver.exchanges
    assert worker.load(session_id) is not None
    assert driver.nodes[home_of(session_id)].batches == batches
    assert driver.exchanges == exchanges + 1


def test_no_load_takes_longer_than_its_budget_when_every_node_hangs(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    for node in driver.nodes.values():
        node.fault = "timeout"
    started = driver.clock.monotonic()
    with pytest.raises(SessionUnavailable):
        worker.load(session_id)
    assert driver.clock.monotonic() - started <= 0.25 + 0.02


def test_could_not_ask_is_never_not_found(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    session_id = make_worker().store(user="ada")
    for name in holders(driver, session_id):
        driver.nodes[name].fault = "refused"
    with pytest.raises(SessionUnavailable) as caught:
        make_worker().load(session_id)
    assert session_id not in str(caught.value)
    assert set(caught.value.nodes) == holders(driver, session_id)


def test_with_one_node_down_an_id_that_nobody_knows_is_no_session(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    driver.nodes["n1"].fault = "refused"
    assert make_worker().load(str(SessionId.generate("n1"))) is None


def test_without_backups_a_node_that_is_down_says_nothing_about_its_sessions(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(replicas=0)
    driver.nodes["n1"].fault = "refused"
    with pytest.raises(SessionUnavailable):
        worker.load(str(SessionId.generate("n1")))


@pytest.mark.parametrize(("replicas", "n_down"), [(0, 1), (1, 2), (2, 3)])
def test_nodes_that_can_have_nothing_of_a_session_say_nothing_about_it(replicas: int, n_down: int) -> None:
    driver, session_id, down = _many_nodes(replicas, n_down)
    worker = Worker(driver, make_settings(len(driver.nodes), replicas=replicas))
    for node in down:
        driver.nodes[node].fault = "refused"
        assert not worker.probe(node)
    assert worker.load(session_id) is not None
    for name in holders(driver, session_id):
        driver.nodes[name].server.flush()
    assert worker.load(session_id) is None


@pytest.mark.parametrize(("replicas", "n_down"), [(0, 1), (1, 2), (2, 3)])
def test_nor_about_one_whose_node_was_away_lately(replicas: int, n_down: int) -> None:
    driver, session_id, down = _many_nodes(replicas, n_down)
    worker = Worker(driver, make_settings(len(driver.nodes), replicas=replicas))
    home = home_of(session_id)
    driver.nodes[home].fault = "refused"
    assert not worker.probe(home)
    driver.nodes[home].fault = None
    assert worker.probe(home)
    for node in down:
        driver.nodes[node].fault = "refused"
        assert not worker.probe(node)
    assert worker.load(session_id) is not None


def _many_nodes(replicas: int, n_last: int) -> tuple[SimulatedDriver, str, list[str]]:
    """Return nine nodes, a session that is stored there, and the nodes that rank last for it."""
    driver = SimulatedDriver([f"n{i}" for i in range(1, 10)], VirtualClock())
    writer = Worker(driver, make_settings(9, replicas=replicas))
    session_id = writer.store(user="ada")
    return driver, session_id, writer.ctx.topology.ranked(SessionId(session_id).plain)[-n_last:]


@pytest.mark.parametrize("has_seen_all", [True, False])
def test_but_those_do_to_which_it_has_moved_on_while_others_were_away(has_seen_all: bool) -> None:
    driver, session_id, _ = _many_nodes(1, 1)
    worker = Worker(driver, make_settings(9), seed=1)
    away = []
    for _ in range(3):
        away.append(home_of(session_id))
        driver.nodes[away[-1]].fault = "refused"
        session = worker.load(session_id)
        assert session is not None
        worker.save(session)
        session_id = session.id
    for node in away:
        driver.nodes[node].fault = None
        driver.nodes[node].server.restart()
        assert worker.probe(node)
    reader = worker if has_seen_all else Worker(driver, make_settings(9), seed=2)
    for node in holders(driver, session_id):
        driver.nodes[node].fault = "refused"
        assert not reader.probe(node)
    with pytest.raises(SessionUnavailable):
        reader.load(session_id)


@pytest.mark.parametrize(("n_nodes", "failover_nodes"), [(1, None), (2, "n2"), (3, "n2 n3")])
def test_a_session_on_the_only_primary_has_no_backup_that_could_say_it_is_gone(
    n_nodes: int, failover_nodes: str | None
) -> None:
    driver = SimulatedDriver([f"n{i}" for i in range(1, n_nodes + 1)], VirtualClock())
    settings = make_settings(n_nodes, failover_nodes=failover_nodes)
    session_id = Worker(driver, settings).store(user="ada")
    driver.nodes["n1"].fault = "refused"
    with pytest.raises(SessionUnavailable):
        Worker(driver, settings).load(session_id)


def test_a_node_that_was_away_when_a_session_was_stored_cannot_say_that_it_is_gone() -> None:
    driver = SimulatedDriver(["n1", "n2"], VirtualClock())
    worker = Worker(driver, make_settings(2))
    driver.nodes["n1"].fault = "refused"
    session_id = worker.store(user="ada")
    driver.nodes["n1"].fault = None
    assert worker.probe("n1")
    driver.nodes["n2"].fault = "refused"
    with pytest.raises(SessionUnavailable) as caught:
        worker.load(session_id)
    assert "n2 (127.0.0.1:11002) cannot be reached, n1 (127.0.0.1:11001) may have missed it" in str(caught.value)
    driver.nodes["n2"].fault = None
    assert worker.probe("n2")
    assert worker.load(session_id) is not None
    assert worker.load(str(SessionId.generate("n1"))) is None


@pytest.mark.parametrize("is_down", [False, True])
def test_a_backup_that_was_slow_once_is_asked_all_the_same_when_the_home_has_no_answer(*, is_down: bool) -> None:
    driver = SimulatedDriver(["n1", "n2", "n3", "n4"], VirtualClock())
    worker = Worker(driver, make_settings(4))
    session_id = worker.store(user="ada")
    home, backup = driver.nodes[home_of(session_id)], driver.nodes[backup_of(driver, session_id)]
    reader = Worker(driver, make_settings(4), seed=1)
    backup.fault = "timeout"
    assert reader.load(str(SessionId.generate(backup_of(driver, session_id)))) is None
    backup.fault = None
    home.server.restart()
    home.fault = "refused" if is_down else None
    session = reader.load(session_id)
    assert session is not None
    assert session["user"] == "ada"


def test_a_backup_that_once_did_not_answer_is_asked_when_the_home_dies_though_others_are_left() -> None:
    driver = SimulatedDriver([f"n{i}" for i in range(1, 6)], VirtualClock())
    worker, reader = (Worker(driver, make_settings(5), seed) for seed in (1, 2))
    session_id = worker.store(step=0)
    backup = backup_of(driver, session_id)
    driver.nodes[backup].fault = "timeout"
    session = reader.load(session_id)
    assert session is not None
    reader.save(session)  # on another node: it hears nothing of this one from now on
    driver.nodes[backup].fault = None
    session = worker.load(session_id)
    assert session is not None
    session["step"] = 1
    assert worker.save(session).backups == (backup,)
    driver.nodes[home_of(session_id)].fault = "refused"
    found = reader.load(session_id)
    assert found is not None
    assert dict(found) == {"step": 1}


def test_a_home_that_restarted_empty_gets_its_copy_back_from_the_backup(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(user="ada")
    driver.nodes[home_of(session_id)].server.restart()
    session = worker.load(session_id)
    assert session is not None
    assert not session.id_changed
    assert worker.save(session).status == "stored"
    assert home_of(session_id) in holders(driver, session_id)


def test_a_backup_that_was_lost_is_written_again_by_the_next_request_that_may_write(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(user="ada")
    backup = backup_of(driver, session_id)
    driver.nodes[backup].server.restart()
    session = worker.load(session_id)
    assert session is not None
    worker.save(session)
    assert holders(driver, session_id) == {home_of(session_id), backup}


def test_a_node_that_slept_through_a_save_does_not_serve_its_old_copy(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(step=1)
    home = home_of(session_id)
    driver.nodes[home].fault = "refused"
    moved = worker.load(session_id)
    assert moved is not None
    moved["step"] = 2
    worker.save(moved)
    driver.nodes[home].fault = None
    driver.clock.advance(60)
    assert worker.probe(home)
    again = worker.load(session_id)
    assert again is not None
    assert again["step"] == 2
    worker.save(again)
    assert worker.load(session_id, expect_write=False)["step"] == 2  # type: ignore[index]


def test_a_node_that_missed_a_save_but_was_never_down_does_not_serve_its_old_copy(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(step=1)
    session = worker.load(session_id)
    assert session is not None
    session["step"] = 2
    driver.nodes[home_of(session_id)].fault = "timeout"  # once: not enough to give the node up
    worker.save(session)
    driver.nodes[home_of(session_id)].fault = None
    assert session.id_changed
    again = worker.load(session_id, expect_write=False)
    assert again is not None
    assert again["step"] == 2


def test_failover_nodes_are_used_only_when_no_other_is_up(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker = make_worker(failover_nodes="n3")
    assert {home_of(worker.store(user="ada")) for _ in range(40)} == {"n1", "n2"}
    for name in ("n1", "n2"):
        driver.nodes[name].fault = "refused"
    session = worker.create(user="ada")
    assert worker.save(session).status == "stored"
    assert home_of(session.id) == "n3"


def test_two_nodes_of_three_may_go_one_after_the_other(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = worker.store(user="ada")
    for _ in range(2):
        driver.nodes[home_of(session_id)].fault = "refused"
        session = worker.load(session_id)
        assert session is not None
        assert session["user"] == "ada"
        worker.save(session)
        session_id = session.id
    assert holders(driver, session_id) >= {home_of(session_id)}


def test_a_connection_that_is_lost_again_and_again_is_tried_at_once_and_then_after_a_wait(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(retry=Retry(attempts=3, base=0.02))
    session_id = worker.store(user="ada")
    home = driver.nodes[home_of(session_id)]
    faults: Iterator[FailureKind] = iter(["reset"] * 3)
    asked_at = []

    def lose_connection(_: Exchange) -> None:
        asked_at.append(driver.clock.monotonic())
        home.fault = next(faults, None)

    driver.before_exchange = lose_connection
    assert worker.load(session_id) is not None
    at_once, *later = [after - before for before, after in pairwise(asked_at)]
    assert len(later) == 2
    assert min(later) > at_once + 0.001
    assert worker.ctx.counters.snapshot().retries == 3
    assert not worker.ctx.health.down()
