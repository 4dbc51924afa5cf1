"""Locked sessions over real memcached: many threads and managers, real time, workers that die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from wsgiref.util import setup_testing_defaults

import pytest

from msm_fast import SessionManager, Timeouts
from msm_fast.integrations.wsgi import ENVIRON_KEY, SessionMiddleware
from msm_fast.manager import RequestScope
from tests.integration.conftest import Nodes
from tests.integration.test_manager import home_of, loaded, store, wait_until
from tests.timeouts import HURRIED, UNHURRIED

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

pytestmark = pytest.mark.memcached

MakeManager = Callable[..., SessionManager]

PATIENT = Timeouts(request=2, operation=1, lock=20)


def in_threads(work: Callable[[int], None], n: int) -> None:
    """Let n threads work, and raise what one of them raised."""
    failures: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as error:  # noqa: BLE001 - it is raised below
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    for failure in failures:
        raise failure


def test_invariant_6_no_step_of_a_counter_is_lost_under_locks(make_manager: MakeManager) -> None:
    managers = [make_manager(locking="all", timeouts=PATIENT, on_conflict="error") for _ in range(2)]
    session_id = store(managers[0], n=0)

    def count(i: int) -> None:
        for _ in range(15):
            with managers[i % 2].request(session_id, "POST", "/count") as session:
                session["n"] += 1

    in_threads(count, 4)
    assert loaded(managers[0], session_id)["n"] == 60
    assert sum(manager.statistics().lock_waits for manager in managers) > 0
    assert sum(manager.statistics().conflicts for manager in managers) == 0


def test_waiting_for_a_lock_is_not_charged_to_the_requests_budget(make_manager: MakeManager) -> None:
    manager = make_manager(locking="all", timeouts=Timeouts(request=0.25, lock=10))
    session_id = store(manager, n=0)
    entered, may_go_on = threading.Event(), threading.Event()

    def work(i: int) -> None:
        if i == 0:
            with manager.request(session_id) as session:
                session["n"] += 1
                entered.set()
                assert may_go_on.wait(10)
        else:
            assert entered.wait(10)
            threading.Timer(0.6, may_go_on.set).start()
            with manager.request(session_id) as session:
                session["n"] += 1

    in_threads(work, 2)
    assert loaded(manager, session_id)["n"] == 2


def test_invariant_7_a_long_request_keeps_its_lock_beyond_its_lifetime(make_manager: MakeManager) -> None:
    one = make_manager(locking="all", timeouts=replace(UNHURRIED, lock_ttl=1))
    two = make_manager(locking="all", timeouts=PATIENT, on_conflict="error")
    session_id = store(one, n=0)
    with one.request(session_id) as session:
        session["n"] += 1
        waiter = threading.Thread(target=lambda: in_threads(lambda i: _count_in(two, session_id), 1))
        waiter.start()
        time.sleep(3.5)
        assert waiter.is_alive()
    waiter.join(10)
    assert loaded(one, session_id)["n"] == 2
    assert one.statistics().locks_lost == 0


def _count_in(manager: SessionManager, session_id: str) -> None:
    with manager.request(session_id) as session:
        session["n"] += 1


DYING_WORKER = """
import sys, time
from msm_fast import SessionManager, Timeouts
manager = SessionManager(sys.argv[1], locking="all", timeouts=Timeouts(request=2, operation=1, lock_ttl=1))
with manager.request(sys.argv[2]) as session:
    session["n"] += 100
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def dying_worker(nodes: Nodes) -> Callable[[str], None]:
    """Return a function that starts a worker, lets it lock a session and kills it."""

    def start(session_id: str) -> None:
        text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
        command = [sys.executable, "-c", DYING_WORKER, text, session_id]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"locked\n"
            os.kill(worker.pid, signal.SIGKILL)

    return start


def test_row_42_a_killed_worker_keeps_others_out_no_longer_than_its_locks_lifetime(
    make_manager: MakeManager, dying_worker: Callable[[str], None]
) -> None:
    manager = make_manager(locking="all", timeouts=PATIENT)
    session_id = store(manager, n=0)
    dying_worker(session_id)
    started = time.monotonic()
    _count_in(manager, session_id)
    assert time.monotonic() - started < 4, "its lifetime, two seconds because memcached may be early, and the waits"
    assert loaded(manager, session_id)["n"] == 1


def test_a_lock_does_not_keep_a_request_waiting_when_its_node_is_killed(
    nodes: Nodes, make_manager: MakeManager
) -> None:
    one, two = (make_manager(locking="all", timeouts=PATIENT) for _ in range(2))
    session_id = store(one, n=0)
    with one.request(session_id) as session:
        session["n"] += 1
        nodes[home_of(session_id)].kill()
        started = time.monotonic()
        with two.request(session_id) as other:
            assert other.id_changed
        assert time.monotonic() - started < 2
    assert loaded(two, session_id)["n"] == 1


def test_row_09_a_hanging_node_costs_no_more_than_the_budget(nodes: Nodes, make_manager: MakeManager) -> None:
    manager = make_manager(locking="all", timeouts=HURRIED)
    session_id = store(manager, n=0)
    nodes[home_of(session_id)].pause()
    try:
        started = time.monotonic()
        with manager.request(session_id, "POST") as session:
            session["n"] += 1
        assert time.monotonic() - started < HURRIED.request + 0.3
        assert session.id_changed
    finally:
        nodes[home_of(session_id)].resume()


def test_the_first_save_lets_the_lock_go_of_a_session_that_is_kept_on_this_host_meanwhile(
    make_manager: MakeManager,
) -> None:
    """Its response may stream for hours."""
    one, two = (make_manager(locking="all") for _ in range(2))
    session_id = store(one, n=0)
    scope = one.request(session_id)
    scope.session["n"] = 1
    one.distribution.stop()
    assert scope.save().status == "local"
    _count_in(two, session_id)
    assert two.statistics().lock_waits == 0
    scope.close()


def test_a_lock_whose_release_is_broken_off_is_let_go_in_the_background(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by gevent.Timeout, or a signal's handler."""

    def broken_off(*_: object) -> None:
        raise KeyboardInterrupt

    text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
    with SessionManager(text, locking="all", timeouts=UNHURRIED) as manager:
        session_id = store(manager, n=0)
        scope = manager.request(session_id)
        assert scope.session["n"] == 0
        with monkeypatch.context() as patch:
            patch.setattr(manager._driver, "run", broken_off)
            with pytest.raises(KeyboardInterrupt):
                scope.close()
        _count_in(manager, session_id)


def test_manager_load_takes_no_lock(make_manager: MakeManager) -> None:
    manager = make_manager(locking="all")
    session = loaded(manager, store(manager, n=0))
    session["n"] = 1
    assert manager.save(session).status == "stored"
    assert manager.statistics().locks == 0


@pytest.fixture
def threaded(nodes: Nodes) -> Iterator[SessionManager]:
    """A manager for threads: in an event loop a session is looked up before anybody has the request."""
    text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
    with SessionManager(text, locking="all", timeouts=replace(UNHURRIED, lock=2)) as manager:
        yield manager


def body_of(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    return (str(environ[ENVIRON_KEY]["n"]).encode() for _ in range(2))


def generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    yield str(environ[ENVIRON_KEY]["n"]).encode()


def late_look(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [])
    n = environ[ENVIRON_KEY]["n"]
    return (str(n).encode() for _ in range(2))


@pytest.mark.parametrize("app", [body_of, generator, late_look])
def test_a_body_that_is_made_while_it_is_sent_keeps_no_lock(threaded: SessionManager, app: WSGIApplication) -> None:
    session_id = store(threaded, n=0)
    environ: WSGIEnvironment = {"HTTP_COOKIE": f"session={session_id}"}
    setup_testing_defaults(environ)
    body = SessionMiddleware(app, threaded)(environ, lambda *_: bytes)
    assert next(iter(body)) == b"0"
    with threaded.request(session_id, "POST") as session:
        session["n"] += 1
    assert threaded.statistics().lock_waits == 0
    body.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", [RequestScope.close, RequestScope.abandon])
def test_a_session_that_is_first_used_after_its_request_has_ended_is_not_locked(
    threaded: SessionManager, end: Callable[[RequestScope], None]
) -> None:
    scope = threaded.request(store(threaded, n=0), "POST")
    assert scope.save().status == "unchanged"
    end(scope)
    assert scope.session["n"] == 0  # as a thread that it has left behind does
    assert threaded.statistics().locks == 0


def test_threads_of_one_request_that_look_its_session_up_at_once_have_one_lock(threaded: SessionManager) -> None:
    session_id = store(threaded, n=0)
    scope = threaded.request(session_id, "POST")
    all_look = threading.Barrier(3)

    def work(i: int) -> None:
        if i:
            all_look.wait(10)
            assert scope.session["n"] == 1
            return
        with threaded.request(session_id, "POST") as session:
            session["n"] += 1
            all_look.wait(10)
            wait_until(lambda: threaded.statistics().lock_waits > 0)

    in_threads(work, 3)
    scope.close()
    with threaded.request(session_id, "POST") as session:
        assert session["n"] == 1
    assert threaded.statistics().lock_timeouts == 0


def test_who_looks_at_the_session_while_its_request_finds_a_node_down_has_that_requests_lock(
    nodes: Nodes, threaded: SessionManager
) -> None:
    """As a log does that adds the user to each line."""
    session_id = store(threaded, n=0)
    scope = threaded.request(session_id, "POST")
    heard: list[str] = []
    threaded.subscribe(lambda event: heard.append(f"{event.kind}: {scope.session['n']}"))
    nodes[home_of(session_id)].kill()
    with scope as session:
        session["n"] += 1
    assert "node_down: 0" in heard
    assert threaded.statistics().lock_waits == 0
    assert loaded(threaded, session_id)["n"] == 1
