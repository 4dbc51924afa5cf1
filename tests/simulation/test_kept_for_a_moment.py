"""A session cannot be reached, or stored, for a moment, while others are: what this host keeps of it, and what then."""

import pytest

from msm_fast import DistributionState
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import LOCAL, MakeWorker, change, heal
from tests.simulation.test_loading import backup_of, home_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker


def keep_for_a_moment(driver: SimulatedDriver, worker: Worker, session_id: str) -> None:
    """Have a change of a session kept here, as all nodes hang just then; its id must stay as it is."""
    session = loaded(worker, session_id)
    for node in driver.nodes.values():
        node.fault = "timeout"
    session["late"] = True
    assert worker.save(session).status == "local"
    heal(driver, worker)
    assert session.id == session_id


def test_a_session_whose_nodes_are_down_is_served_here_while_others_are_distributed(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session_id = worker.store(n=0)
    home, backup = home_of(session_id), backup_of(driver, session_id)
    for name in (home, backup):
        driver.nodes[name].fault = "refused"
    assert change(worker, session_id, n=1) == "local"
    assert read(worker, session_id) == {"n": 1}
    assert worker.ctx.state() is DistributionState.DEGRADED
    other = worker.create(n=5)
    assert worker.save(other).status == "stored"


def test_what_was_kept_here_for_a_moment_is_laid_over_what_the_cluster_has(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = worker.store(a=0, b=0, c=0)
    session = loaded(worker, session_id)
    session["a"] = 1
    del session["c"]
    for node in driver.nodes.values():
        node.fault = "timeout"  # once: not enough to take a node for down
    assert worker.save(session).status == "local"
    for node in driver.nodes.values():
        node.fault = None
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    change(other, session_id, b=2)
    session = loaded(worker, session_id)
    assert dict(session) == {"a": 1, "b": 2}
    assert worker.save(session).status == "stored"
    assert len(worker.ctx.local) == 0
    assert read(other, session_id) == {"a": 1, "b": 2}


def test_what_was_kept_here_for_a_moment_undoes_nothing_that_was_stored_meanwhile(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = worker.store(a=0, b=0, c=0, d=0)
    session = loaded(worker, session_id)
    for node in driver.nodes.values():
        node.fault = "timeout"
    session.update(a=1, b=1)
    del session["c"]
    assert worker.save(session).status == "local"
    for node in driver.nodes.values():
        node.fault = None
    assert change(other, session_id, a=2, c=2, d=2) == "stored"
    assert read(worker, session_id) == {"a": 2, "b": 1, "c": 2, "d": 2}


def test_a_session_that_is_kept_here_for_a_moment_is_found_by_its_id_where_the_cluster_has_it(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(replicas=0, **LOCAL), make_worker(replicas=0, **LOCAL)
    driver.nodes["n1"].fault = "refused"
    session_ids = [worker.store(n=n) for n in range(10)]  # some of them would be on n1
    heal(driver, worker)
    for n, session_id in enumerate(session_ids):
        keep_for_a_moment(driver, worker, session_id)
        assert read(other, session_id) == {"n": n}


def test_so_is_one_that_was_to_leave_a_node_that_drains(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    worker, other = make_worker(replicas=0, **LOCAL), make_worker(replicas=0, **LOCAL)
    session_ids = [worker.store(n=n) for n in range(10)]
    for drained in (worker, other):
        drained.ctx.change_topology(drained.ctx.settings, {"n1"})
    for n, session_id in enumerate(session_ids):
        if home_of(session_id) == "n1":
            keep_for_a_moment(driver, worker, session_id)
            assert read(other, session_id) == {"n": n}


def test_a_login_that_could_not_be_stored_for_a_moment_is_stored_by_the_next_request(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker(**LOCAL)
    session = worker.create(user="ada")
    for node in driver.nodes.values():
        node.fault = "timeout"
    assert worker.save(session).status == "local"
    for node in driver.nodes.values():
        node.fault = None
    again = loaded(worker, session.id)
    assert dict(again) == {"user": "ada"}
    assert worker.save(again).status == "stored"
    assert read(make_worker(**LOCAL), session.id) == {"user": "ada"}


def test_the_former_id_of_a_login_that_could_not_be_stored_for_a_moment_ends_in_the_cluster(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(**LOCAL), make_worker(**LOCAL)
    session_id = worker.store(cart=[1])
    session = loaded(worker, session_id)
    session.rotate_id()
    session["user"] = "ada"
    for node in driver.nodes.values():
        node.fault = "timeout"
    assert worker.save(session).status == "local"
    heal(driver, worker)
    assert other.load(session_id) is None
    assert worker.load(session_id) is None


@pytest.mark.parametrize("gets_new_id", [False, True], ids=["logout", "new id"])
def test_a_session_that_could_not_be_stored_for_a_moment_ends_here_too(
    driver: SimulatedDriver, make_worker: MakeWorker, gets_new_id: bool
) -> None:
    worker = make_worker(on_cluster_lost="local")
    for node in driver.nodes.values():
        node.fault = "timeout"
    session = worker.create(user="ada")
    assert worker.save(session).status == "local"
    for node in driver.nodes.values():
        node.fault = None
    former_id = session.id
    slow, session = loaded(worker, former_id), loaded(worker, former_id)
    if gets_new_id:
        session.rotate_id()
    else:
        session.invalidate()
    assert worker.save(session).status == ("stored" if gets_new_id else "invalidated")
    assert worker.load(former_id) is None
    slow["late"] = True
    assert worker.save(slow).status == "invalidated"
    assert worker.load(former_id) is None
