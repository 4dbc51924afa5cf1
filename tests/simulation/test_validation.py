"""Near copies: a session that has not changed is not transferred again, and nothing else is taken for it.

No memcached from 1.6.40 on is at hand: what it answers to mg with C is simulated, byte for byte.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from msm_fast import NearCacheSettings, SessionId
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.locking_worker import LockingWorker
from tests.simulation.schedules.checks import violations_of
from tests.simulation.schedules.profiles import PROFILES, Profile
from tests.simulation.schedules.schedule import Schedule
from tests.simulation.test_loading import backup_of, home_of, key_of
from tests.simulation.worker import Worker, make_settings

OLD, NEW = (1, 6, 39), (1, 6, 40)
LARGE = "x" * 2000


class Cluster:
    """Nodes of one version, workers that validate what is over 1000 bytes, and what went over the wire."""

    def __init__(self, version: tuple[int, int, int]) -> None:
        self.driver = SimulatedDriver(["n1", "n2", "n3"], VirtualClock())
        self.asked: list[bytes] = []
        self.answered: list[bytes] = []
        for node in self.driver.nodes.values():
            node.server.version = version
            node.server.handle = self._listening(node.server.handle)  # type: ignore[method-assign]

    def _listening(self, handle: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
        def listening(data: bytes) -> bytes:
            answer = handle(data)
            self.asked.append(data)
            self.answered.append(answer)
            return answer

        return listening

    def worker(self, replicas: int = 1, seed: int = 0) -> Worker:
        near_cache = NearCacheSettings(validate_over=1000)
        return Worker(self.driver, make_settings(replicas=replicas, near_cache=near_cache), seed)

    def store_again(self, session_id: str, worker: Worker, **attributes: object) -> None:
        """Store a session under an id that there was before, as if it were new."""
        session = worker.create(**attributes)
        session.state.session_id = SessionId(session_id)
        assert worker.save(session).status == "stored"

    def read(self, worker: Worker, session_id: str) -> dict[str, object] | None:
        """Return what a request that only reads finds, and keep what it said."""
        self.asked.clear()
        self.answered.clear()
        session = worker.load(session_id, expect_write=False)
        return None if session is None else dict(session)


@pytest.fixture(params=[OLD, NEW], ids=["without mg C", "with mg C"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    """Nodes of each kind in turn."""
    return Cluster(request.param)


def validated(worker: Worker) -> int:
    return worker.ctx.counters.snapshot().validated


def test_a_large_session_that_has_not_changed_is_not_transferred_and_takes_one_round_trip(cluster: Cluster) -> None:
    worker, other = cluster.worker(seed=1), cluster.worker(seed=2)
    session_id = worker.store(text=LARGE)
    assert cluster.read(other, session_id) == {"text": LARGE}
    for reader, n in ((worker, 1), (worker, 2), (other, 1)):
        assert cluster.read(reader, session_id) == {"text": LARGE}
        assert len(cluster.asked) == 1
        assert cluster.answered[0].startswith(b"HD ")
        assert LARGE.encode() not in cluster.answered[0]
        assert validated(reader) == n


def test_one_that_has_changed_is_transferred(cluster: Cluster) -> None:
    worker, other = cluster.worker(seed=1), cluster.worker(seed=2)
    session_id = worker.store(text=LARGE)
    session = other.load(session_id)
    assert session is not None
    session["more"] = 1
    other.save(session)
    assert cluster.read(worker, session_id) == {"text": LARGE, "more": 1}
    assert len(cluster.asked) == (1 if cluster.driver.nodes["n1"].server.compares else 2)
    assert validated(worker) == 0
    assert cluster.read(worker, session_id) == {"text": LARGE, "more": 1}
    assert validated(worker) == 1


def test_one_that_was_ended_is_not_served_from_near(cluster: Cluster) -> None:
    worker, other = cluster.worker(seed=1), cluster.worker(seed=2)
    session_id = worker.store(text=LARGE)
    session = other.load(session_id)
    assert session is not None
    session.invalidate()
    other.save(session)
    assert cluster.read(worker, session_id) is None
    assert validated(worker) == 0


def test_a_cas_value_that_repeats_after_a_restart_is_no_proof(cluster: Cluster) -> None:
    worker, rival = cluster.worker(replicas=0, seed=1), cluster.worker(replicas=0, seed=2)
    session_id = worker.store(text=LARGE)
    home = cluster.driver.nodes[home_of(session_id)].server
    before = home.peek(key_of(session_id))
    home.restart()
    cluster.store_again(session_id, rival, text=LARGE.upper())
    after = home.peek(key_of(session_id))
    assert before is not None
    assert after is not None
    assert before.cas == after.cas
    assert cluster.read(worker, session_id) == {"text": LARGE.upper()}
    assert validated(worker) == 0


def test_neither_is_it_where_nobody_noticed_the_restart(cluster: Cluster) -> None:
    worker, rival = cluster.worker(replicas=0, seed=1), cluster.worker(replicas=0, seed=2)
    session_id = worker.store(text=LARGE)
    home = cluster.driver.nodes[home_of(session_id)].server
    before = home.peek(key_of(session_id))
    home.evict(key_of(session_id))
    cluster.store_again(session_id, rival, text=LARGE.upper())
    after = home.peek(key_of(session_id))
    assert before is not None
    assert after is not None
    after.cas = before.cas
    assert cluster.read(worker, session_id) == {"text": LARGE.upper()}
    assert validated(worker) == 0


def test_neither_is_the_same_write_in_another_life_of_the_node(cluster: Cluster) -> None:
    worker = cluster.worker(replicas=0)
    session_id = worker.store(text=LARGE)
    home = cluster.driver.nodes[home_of(session_id)].server
    home.life += 1
    assert cluster.read(worker, session_id) == {"text": LARGE}
    assert len(cluster.asked) == 2
    assert validated(worker) == 0
    assert cluster.read(worker, session_id) == {"text": LARGE}
    assert validated(worker) == 1


def test_after_a_flush_the_session_comes_from_its_backup_and_is_stored_again(cluster: Cluster) -> None:
    worker = cluster.worker()
    session_id = worker.store(text=LARGE)
    home = cluster.driver.nodes[home_of(session_id)].server
    home.flush()
    session = worker.load(session_id)
    assert session is not None
    assert dict(session) == {"text": LARGE}
    assert worker.save(session).status == "stored"
    assert home.peek(key_of(session_id)) is not None


def test_a_backup_that_stands_in_for_its_home_is_validated_too(cluster: Cluster) -> None:
    worker = cluster.worker()
    session_id = worker.store(text=LARGE)
    backup = backup_of(cluster.driver, session_id)
    cluster.driver.nodes[home_of(session_id)].fault = "refused"
    worker.load(session_id)  # finds out
    n = validated(worker)
    assert cluster.read(worker, session_id) == {"text": LARGE}
    assert not any(LARGE.encode() in answer for answer in cluster.answered)
    assert validated(worker) == n + 1
    assert cluster.driver.nodes[backup].server.peek(key_of(session_id)) is not None


def test_a_validated_session_lives_on_as_if_it_had_been_transferred(cluster: Cluster) -> None:
    worker = cluster.worker()
    session_id = worker.store(text=LARGE)
    for _ in range(5):
        cluster.driver.clock.advance(1000)
        assert cluster.read(worker, session_id) == {"text": LARGE}
    assert validated(worker) >= 4
    cluster.driver.clock.advance(1900)
    assert cluster.read(worker, session_id) is None


def test_each_request_has_a_view_of_its_own(cluster: Cluster) -> None:
    worker = cluster.worker()
    session_id = worker.store(text=LARGE, cart=["apple"])
    session = worker.load(session_id, expect_write=False)
    assert session is not None
    session["cart"].append("pear")
    assert cluster.read(worker, session_id) == {"text": LARGE, "cart": ["apple"]}
    assert worker.save(session).status == "stored"
    assert cluster.read(worker, session_id) == {"text": LARGE, "cart": ["apple", "pear"]}


def test_a_small_session_is_validated_only_where_that_costs_no_second_round_trip(cluster: Cluster) -> None:
    worker = cluster.worker()
    session_id = worker.store(n=1)
    assert cluster.read(worker, session_id) == {"n": 1}
    (asked,), (answered,) = cluster.asked, cluster.answered
    cas = cluster.driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    assert cas is not None
    if cluster.driver.nodes["n1"].server.compares:
        assert b" v c f t T1802 C%d O" % cas.cas in asked
        assert answered.startswith(b"HD c%d " % cas.cas)
    else:
        assert b" v c f t T1802 O" in asked
        assert answered.startswith(b"VA ")
    assert validated(worker) == int(answered.startswith(b"HD"))


def test_a_node_that_comes_back_as_an_older_memcached_is_asked_as_one() -> None:
    cluster = Cluster(NEW)
    worker = cluster.worker(replicas=0)
    session_id = worker.store(text=LARGE)
    home = cluster.driver.nodes[home_of(session_id)].server
    cluster.read(worker, session_id)
    assert b" C" in cluster.asked[0]
    home.version = OLD
    home.restart()
    cluster.store_again(session_id, worker, text=LARGE)
    assert cluster.read(worker, session_id) == {"text": LARGE}
    assert b" C" not in cluster.asked[0]
    assert b" v " not in cluster.asked[0]
    assert validated(worker) == 2


@pytest.mark.parametrize("profile", PROFILES[:2], ids=lambda profile: profile.name)
def test_no_near_copy_hides_a_write_whatever_happens_to_one_node(profile: Profile) -> None:
    n_validated = 0
    for seed in range(150):
        schedule = Schedule(seed, profile)
        schedule.driver.nodes["n2"].server.version = NEW
        for worker in schedule.workers:
            worker.ctx.settings = replace(worker.ctx.settings, near_cache=NearCacheSettings(validate_over=1))
        assert not violations_of(schedule.run()), f"seed {seed}"
        n_validated += sum(validated(worker) for worker in schedule.workers)
    assert n_validated > 50


def test_a_worker_that_locks_knows_from_its_first_request_that_a_node_leaves_out_what_has_not_changed() -> None:
    cluster = Cluster(NEW)
    session_id = cluster.worker().store(text="small")
    worker = LockingWorker(cluster.driver, make_settings(locking="all"), seed=2)
    for _ in range(3):
        request = worker.begin(session_id)
        assert request is not None
        request.give_up()
    assert validated(worker) == 2
