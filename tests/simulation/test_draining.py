"""Nodes that get no new session and no backup, because they drain or are for failover."""

from collections.abc import Callable

import pytest

from msm_fast import SaveResult, SessionUnavailable
from msm_fast.engine.effects import Batch, Exchange, Flow
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.sticky_worker import StickyWorker
from tests.simulation.test_loading import backup_of, holders, home_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.test_topology_changes import change, store_on
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def test_a_draining_node_gets_no_new_session_and_no_backup(driver: SimulatedDriver, worker: Worker) -> None:
    change(worker, "n1", "n2", "n3", draining=("n2",))
    for _ in range(20):
        assert holders(driver, worker.store(user="ada")) == {"n1", "n3"}


def test_its_sessions_move_at_their_next_request(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = store_on(worker, "n2")
    change(worker, "n1", "n2", "n3", draining=("n2",))
    session = loaded(worker, session_id)
    assert session.id_changed
    assert home_of(session.id) in ("n1", "n3")
    assert worker.save(session).status == "stored"
    driver.nodes["n2"].fault = "refused"
    assert read(worker, session.id) == {"user": "ada"}


def test_an_id_from_before_the_move_leads_to_what_was_written_since(driver: SimulatedDriver, worker: Worker) -> None:
    session_id = store_on(worker, "n2")
    change(worker, "n1", "n2", "n3", draining=("n2",))
    session = loaded(worker, session_id)
    worker.save(session)
    for page in (1, 2):
        later = loaded(worker, session.id)
        later["page"] = page
        worker.save(later)
    assert read(worker, session_id)["page"] == 2


def test_a_draining_node_holds_no_backup_that_could_say_a_session_is_gone(
    driver: SimulatedDriver, worker: Worker
) -> None:
    change(worker, "n1", "n2", draining=("n2",))
    session_id = worker.store(user="ada")
    driver.nodes["n1"].fault = "refused"
    with pytest.raises(SessionUnavailable):
        worker.load(session_id)


@pytest.mark.parametrize("draining", [("n1", "n2", "n3"), ("n1", "n2")])
def test_draining_nodes_are_used_when_nothing_else_is_left(
    driver: SimulatedDriver, worker: Worker, draining: tuple[str, ...]
) -> None:
    driver.nodes["n3"].fault = "refused"
    worker.store(user="ada")
    change(worker, "n1", "n2", "n3", draining=draining)
    for _ in range(10):
        assert read(worker, worker.store(user="ada")) == {"user": "ada"}


@pytest.mark.parametrize("is_sticky", [False, True])
@pytest.mark.parametrize("home", ["n1", "n2"])
def test_a_session_stays_where_it_is_while_all_nodes_drain_that_are_up(
    driver: SimulatedDriver, worker: Worker, is_sticky: bool, home: str
) -> None:
    if is_sticky:
        worker = StickyWorker(driver, make_settings(sticky=True, route="w1"))
    ids = [store_on(worker, home) for _ in range(5)]
    worker.catch_up()
    driver.nodes["n3"].fault = "refused"
    assert not worker.probe("n3")
    change(worker, "n1", "n2", "n3", draining=("n1", "n2"))
    for session_id in ids:
        worker.save(loaded(worker, session_id))  # its backup may have been on the node that is down
        worker.catch_up()
        session = loaded(worker, session_id)
        assert worker.save(session).status == "unchanged"
        assert session.id == session_id
        assert holders(driver, session_id) >= {"n1", "n2"}


@pytest.mark.parametrize("how", ["drained", "removed"])
def test_a_sticky_session_leaves_such_a_node_at_its_next_request(driver: SimulatedDriver, how: str) -> None:
    worker = StickyWorker(driver, make_settings(sticky=True, route="w1"))
    session_id = store_on(worker, "n2")
    worker.catch_up()
    if how == "drained":
        change(worker, "n1", "n2", "n3", draining=("n2",))
    else:
        change(worker, "n1", "n3")
    session = loaded(worker, session_id)
    assert home_of(session.id) in ("n1", "n3")
    worker.save(session)
    worker.catch_up()
    assert holders(driver, session.id) >= {"n1", "n3"}


@pytest.mark.parametrize("replicas", [0, 1])
def test_what_is_left_on_a_draining_node_follows_each_change_where_nothing_else_has_another_copy(
    driver: SimulatedDriver, make_worker: MakeWorker, replicas: int
) -> None:
    first, second = make_worker(replicas=replicas), make_worker(replicas=replicas)
    session_id = store_on(first, "n1")
    for worker in (first, second):
        change(worker, "n1", "n2", draining=("n1",))
    for page in range(6):
        session = (first, second)[page % 2].load(session_id, expect_write=False)
        assert session is not None
        session["page"] = page
        (first, second)[page % 2].save(session)
        session_id = session.id
    driver.nodes["n2"].fault = "refused"
    assert read(first, session_id)["page"] == 5


NAMES = ("n1", "n2", "n3", "n4")


def worker_of_four(*, draining: tuple[str, ...] = (), failover: tuple[str, ...] = ()) -> Worker:
    worker = Worker(SimulatedDriver(list(NAMES), VirtualClock()), make_settings(4), seed=1)
    change(worker, *NAMES, draining=draining, failover=failover)
    return worker


def test_a_session_is_found_by_its_backup_however_many_nodes_drain() -> None:
    worker = worker_of_four(draining=("n3", "n4"))
    ids = [store_on(worker, "n1") for _ in range(20)]
    worker.driver.nodes["n1"].fault = "refused"
    for session_id in ids:
        assert read(worker, session_id) == {"user": "ada"}


def test_a_session_from_before_nodes_drain_is_found_by_its_backup_on_one_of_them() -> None:
    worker = worker_of_four()
    ids = [store_on(worker, "n1") for _ in range(20)]
    change(worker, *NAMES, draining=("n3", "n4"))
    worker.driver.nodes["n1"].fault = "refused"
    for session_id in ids:
        assert read(worker, session_id) == {"user": "ada"}


def test_a_session_that_is_ended_while_nodes_drain_is_ended_on_its_backup_too() -> None:
    worker = worker_of_four(draining=("n3", "n4"))
    ids = [store_on(worker, "n1") for _ in range(20)]
    for session_id in ids:
        session = loaded(worker, session_id)
        session.invalidate()
        worker.save(session)
    change(worker, "n1", "n2")
    worker.driver.nodes["n1"].server.restart()
    assert [worker.load(session_id) for session_id in ids] == [None] * 20


def test_a_session_that_came_to_failover_nodes_is_found_on_the_other_when_primaries_are_back() -> None:
    worker = worker_of_four(failover=("n3", "n4"))
    nodes = worker.driver.nodes
    nodes["n1"].fault = nodes["n2"].fault = "refused"
    worker.store(user="ada")
    ids = [store_on(worker, "n3") for _ in range(20)]
    nodes["n1"].fault = nodes["n2"].fault = None
    assert worker.probe("n1")
    assert worker.probe("n2")
    nodes["n3"].fault = "refused"
    for session_id in ids:
        assert read(worker, session_id) == {"user": "ada"}


@pytest.mark.parametrize("more", [{"draining": ("n3",)}, {"failover": ("n3",)}])
@pytest.mark.parametrize("replicas", [1, 2])
def test_nodes_that_get_no_backup_are_not_missed_by_requests_that_change_nothing(
    driver: SimulatedDriver, make_worker: MakeWorker, replicas: int, more: dict[str, tuple[str, ...]]
) -> None:
    worker = make_worker(replicas=replicas)
    change(worker, "n1", "n2", "n3", **more)
    for _ in range(10):
        session_id = worker.store(user="ada")
        for _ in range(2):
            other = make_worker(replicas=replicas)  # which has not seen it, and asks the backups
            change(other, "n1", "n2", "n3", **more)
            session = loaded(other, session_id)
            assert other.save(session).status == "unchanged"


def test_a_backup_leaves_a_draining_node_although_the_session_is_only_read(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    session_id = store_on(worker, "n1")
    (other,) = {"n2", "n3"} - {backup_of(driver, session_id)}
    reader = make_worker()
    change(reader, "n1", "n2", "n3", draining=(backup_of(driver, session_id),))
    assert reader.save(loaded(reader, session_id)).status == "stored"
    assert holders(driver, session_id) >= {"n1", other}


def test_so_it_does_where_the_other_node_has_what_was_stored_before_one_came_and_went(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    session_id = store_on(worker, "n1")
    (other,) = {"n2", "n3"} - {backup_of(driver, session_id)}
    new = backup_of(driver, session_id)
    driver.nodes[new].server.flush()
    change(worker, "n1", other)
    worker.save(loaded(worker, session_id))
    assert holders(driver, session_id) == {"n1", other}
    change(worker, "n1", "n2", "n3")
    session = loaded(worker, session_id)
    session["page"] = 1
    assert worker.save(session).backups == (new,)
    change(worker, "n1", "n2", "n3", draining=(new,))
    driver.clock.advance(10)
    assert worker.save(loaded(worker, session_id)).status == "stored"
    change(worker, "n1", other)
    driver.nodes["n1"].fault = "refused"
    assert read(worker, session_id) == {"user": "ada", "page": 1}


@pytest.mark.parametrize("is_changed", [True, False])
def test_what_a_worker_that_died_left_on_a_draining_node_counts_for_nothing_when_the_home_is_down(
    driver: SimulatedDriver, make_worker: MakeWorker, is_changed: bool
) -> None:
    worker, dying = make_worker(), make_worker()
    session_id = store_on(make_worker(), "n1")
    backup = backup_of(driver, session_id)
    begun = loaded(dying, session_id)
    begun["begun"] = True
    carry_out_only_at(driver, dying.keep(begun.state), backup)
    change(worker, "n1", "n2", "n3", draining=(backup,))
    session = loaded(worker, session_id)
    if is_changed:
        session["page"] = 1
    assert worker.save(session).status == "stored"
    driver.nodes["n1"].fault = "refused"
    assert read(make_worker(), session_id) == {"user": "ada", **({"page": 1} if is_changed else {})}


def carry_out_only_at(driver: SimulatedDriver, flow: Flow[SaveResult], node: str) -> None:
    """Let a flow's first exchange reach one node, and the flow end there."""
    effect = next(flow)
    assert isinstance(effect, Exchange)
    (batch,) = [batch for batch in effect.batches if batch.node == node]
    driver.run(single(batch))
    flow.close()


def single(batch: Batch) -> Flow[None]:
    yield Exchange([batch])
