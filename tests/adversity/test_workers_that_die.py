"""Workers that are killed or stopped with a session's lock, and nodes that hang while they are asked for one.

Rows 9, 42 and 43 of the fault matrix. The workers that die are processes of their own.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from msm_fast import ConflictError, Event, SessionManager
from tests.adversity.conftest import UNHURRIED, Cluster, home_of, is_normal, key_of
from tests.adversity.items import has_copy
from tests.adversity.proxy import Faults, once
from tests.adversity.stopwatch import Stopwatch
from tests.adversity.visitor import MARGIN_S, Visitor, wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

TTL_S = 1
LONGEST_TTL_S = TTL_S + 2 + 1
"""memcached may be two seconds early, so a lock is given two more; who waits for it asks again a little later."""
LOCKING: dict[str, Any] = {"locking": "all", "timeouts": replace(UNHURRIED, lock=10, lock_ttl=TTL_S)}
HURRIED_LOCKING: dict[str, Any] = {"locking": "all", "timeouts": replace(HURRIED, lock=10, lock_ttl=TTL_S)}

OTHER_WORKER = """
import sys
from msm_fast import ConflictError, SessionManager, Timeouts
nodes, cookie, on_conflict = sys.argv[1:]
timeouts = Timeouts(connect=2, operation=2, request=30, lock_ttl=1)
manager = SessionManager(nodes, locking="all", timeouts=timeouts, on_conflict=on_conflict)
scope = manager.request(cookie, "POST")
scope.session["by"] = "the other"
scope.session["slow"] = True
print("locked", flush=True)
input()
try:
    print(scope.save().status, flush=True)
except ConflictError:
    print("conflict", flush=True)
scope.close()
"""


class OtherWorker:
    """A worker in a process of its own that has locked a session and waits before it saves it."""

    def __init__(self, cluster: Cluster, cookie: str | None, on_conflict: str = "merge") -> None:
        nodes = ",".join(f"{name}:{server.address}" for name, server in cluster.servers.items())
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER_WORKER, nodes, str(cookie), on_conflict],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._read() == "locked"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def pause(self) -> None:
        """Stop it, and wait until it is: it renews no lock any more."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)

    def resume_and_save(self) -> str:
        """Let it go on to the end of its request; return what came of the save."""
        self.process.send_signal(signal.SIGCONT)
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self._read()

    def close(self) -> None:
        self.process.kill()
        with self.process:
            pass

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


MakeOtherWorker = Callable[..., OtherWorker]


@pytest.fixture
def make_other_worker(cluster: Cluster) -> Iterator[MakeOtherWorker]:
    """Return a function that starts a worker which locks a session."""
    made: list[OtherWorker] = []

    def make(cookie: str | None, on_conflict: str = "merge") -> OtherWorker:
        made.append(OtherWorker(cluster, cookie, on_conflict))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


def lock_on(cluster: Cluster, node: str, cookie: str | None) -> bytes | None:
    """Return the token of the session's lock on node."""
    with cluster.servers[node].client() as client:
        token: bytes | None = client.get(f"msm:lock:{key_of(cookie)}")
        return token


def is_lock(data: bytes) -> bool:
    """Whether a piece of a request begins with a command that adds or renews a lock."""
    return data.startswith(b"ms msm:lock:")


def count_up(visitor: Visitor) -> None:
    """Make a request that reads and writes, under the session's lock."""
    with visitor.worker.request(visitor.cookie, "POST") as session:
        session["n"] += 1


# -- row 9


def test_row_09_a_node_that_hangs_when_it_is_asked_for_a_lock_costs_one_operation_and_the_session_moves(
    cluster: Cluster, stopwatch: Stopwatch
) -> None:
    worker = cluster.worker(**HURRIED_LOCKING)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    old_cookie, visitor.slowest_s = visitor.cookie, 0.0

    def is_asked_for_a_lock(data: bytes) -> bool:
        if is_lock(data):
            cluster.servers["n1"].pause()
        return False

    cluster.proxies["n1"].requests = Faults(only=is_asked_for_a_lock)
    assert visitor.post(n=1).status == "stored"
    assert home_of(visitor.cookie) != "n1"
    assert visitor.slowest_s < HURRIED.request + MARGIN_S
    cluster.proxies["n1"].requests = Faults()
    cluster.servers["n1"].resume()  # and only now it gives the lock to a request that is over
    wait_until(lambda: is_normal(worker) and worker.nodes()[0].is_up)
    visitor.cookie = old_cookie
    interval = stopwatch.start()
    assert visitor.post(m=1).status in ("stored", "merged")
    assert interval.seconds() < LONGEST_TTL_S
    assert visitor.get() == {"n": 1, "m": 1}


@pytest.mark.parametrize("loss", ["reset", "closed"])
def test_row_09_a_lock_whose_answer_was_lost_is_known_by_its_token_and_let_go(cluster: Cluster, loss: str) -> None:
    worker = cluster.worker(**LOCKING)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    ways_to_lose = {"reset": {"resets": 1}, "closed": {"cuts_after": 0}}[loss]
    answer_of_the_add = once(lambda data: data.startswith(b"HD "))
    cluster.proxies["n1"].replies = Faults(only=answer_of_the_add, **ways_to_lose)  # type: ignore[arg-type]
    visitor.slowest_s = 0.0
    assert visitor.post(n=1).status == "stored"
    assert visitor.slowest_s < TTL_S, "it does not wait for its own lock to expire"
    assert (worker.statistics().retries, worker.statistics().lock_timeouts) == (1, 0)
    assert worker.statistics().locks == 1
    assert lock_on(cluster, "n1", visitor.cookie) is None
    assert visitor.get() == {"n": 1}


# -- row 42


def test_row_42_those_who_wait_for_a_dead_worker_s_lock_get_in_one_by_one_after_its_lifetime(
    cluster: Cluster, stopwatch: Stopwatch, make_other_worker: MakeOtherWorker
) -> None:
    worker = cluster.worker(**LOCKING)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    dead = make_other_worker(visitor.cookie)
    asked = 0

    def count(data: bytes) -> bool:
        nonlocal asked
        asked += is_lock(data)
        return False

    cluster.proxies["n1"].requests = Faults(only=count)
    dead.kill()
    assert lock_on(cluster, "n1", visitor.cookie) is not None
    interval = stopwatch.start()
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(count_up, visitor) for _ in range(4)]:
            future.result()
    assert interval.seconds() < LONGEST_TTL_S + 1
    assert visitor.get() == {"n": 4}, "and nothing of what the dead one was about to write"
    assert asked < 4 * 100, "they wait longer each time"
    assert lock_on(cluster, "n1", visitor.cookie) is None


def test_row_42_a_dead_worker_s_lock_keeps_no_other_session_waiting(
    cluster: Cluster, make_other_worker: MakeOtherWorker
) -> None:
    worker = cluster.worker(**LOCKING)
    locked, other = (cluster.visitor_at_home_on("n1", worker, n=0) for _ in range(2))
    make_other_worker(locked.cookie).kill()
    other.slowest_s = 0.0
    other.post(n=1)
    assert other.slowest_s < TTL_S
    assert worker.statistics().lock_waits == 0


def test_row_42_a_session_whose_lock_died_with_its_node_is_locked_where_it_moves(
    cluster: Cluster, stopwatch: Stopwatch, make_other_worker: MakeOtherWorker
) -> None:
    worker = cluster.worker(**LOCKING, is_direct=True)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    make_other_worker(visitor.cookie).kill()
    cluster.servers["n1"].kill()
    interval = stopwatch.start()
    visitor.post(n=1)
    assert interval.seconds() < TTL_S
    assert home_of(visitor.cookie) != "n1"
    assert has_copy(cluster, home_of(visitor.cookie), visitor.cookie)


# -- row 43


class LockedRequest:
    """A request that has its session's lock and goes on when told."""

    def __init__(self, worker: SessionManager, visitor: Visitor) -> None:
        self._scope = worker.request(visitor.cookie, "POST")
        self._scope.session["by"] = "this one"
        self._scope.session["next"] = True

    def save(self) -> str:
        try:
            return self._scope.save().status
        finally:
            self._scope.close()


def test_row_43_a_worker_that_was_stopped_beyond_its_lock_s_lifetime_merges_and_leaves_the_next_one_s_lock(
    cluster: Cluster, make_other_worker: MakeOtherWorker
) -> None:
    worker = cluster.worker(**LOCKING)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    slow = make_other_worker(visitor.cookie)
    slow.pause()
    next_one = LockedRequest(worker, visitor)
    token = lock_on(cluster, "n1", visitor.cookie)
    assert token is not None
    assert slow.resume_and_save() == "stored"
    assert lock_on(cluster, "n1", visitor.cookie) == token
    assert next_one.save() == "merged"
    assert lock_on(cluster, "n1", visitor.cookie) is None
    assert visitor.get() == {"n": 0, "slow": True, "next": True, "by": "this one"}


def test_row_43_what_it_stores_after_the_next_one_is_laid_over_or_refused_as_on_conflict_says(
    cluster: Cluster, make_other_worker: MakeOtherWorker
) -> None:
    worker = cluster.worker(**LOCKING)
    visitors = {policy: cluster.visitor_at_home_on("n1", worker, n=0) for policy in ("merge", "error")}
    slow = {policy: make_other_worker(visitor.cookie, policy) for policy, visitor in visitors.items()}
    for other in slow.values():
        other.pause()
    for policy, expected in (("merge", "merged"), ("error", "conflict")):
        assert LockedRequest(worker, visitors[policy]).save() == "stored"
        assert slow[policy].resume_and_save() == expected
        found = visitors[policy].get()
        assert (found["next"], "slow" in found) == (True, policy == "merge")


def test_row_43_a_lock_that_is_lost_while_its_request_runs_is_told(
    cluster: Cluster, make_other_worker: MakeOtherWorker
) -> None:
    worker = cluster.worker(**LOCKING, on_conflict="error")
    events: list[Event] = []
    worker.subscribe(events.append)
    visitor = cluster.visitor_at_home_on("n1", worker, n=0)
    request = LockedRequest(worker, visitor)
    with cluster.servers["n1"].client() as client:
        client.delete(f"msm:lock:{key_of(visitor.cookie)}")
    assert make_other_worker(visitor.cookie).resume_and_save() == "stored"
    wait_until(lambda: any(event.kind == "lock_lost" for event in events))
    assert worker.statistics().locks_lost == 1
    with pytest.raises(ConflictError):
        request.save()
    assert visitor.get()["by"] == "the other"
