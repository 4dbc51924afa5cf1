"""Processes that fork after the manager was used: a child makes connections of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import multiprocessing
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import pytest

from msm_fast import SessionManager
from tests.integration.conftest import Nodes
from tests.proxy import CountingProxy
from tests.timeouts import UNHURRIED

pytestmark = [
    pytest.mark.memcached,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

START_TIMEOUT_S = 20.0


@pytest.fixture
def proxies(nodes: Nodes) -> Iterator[dict[str, CountingProxy]]:
    """Proxies in front of the nodes: they count connections."""
    proxies = {name: CountingProxy(server.port) for name, server in nodes.items()}
    yield proxies
    for proxy in proxies.values():
        proxy.close()


@pytest.fixture
def manager(proxies: dict[str, CountingProxy]) -> Iterator[SessionManager]:
    with SessionManager(as_text(proxies), timeouts=UNHURRIED, on_cluster_lost="error", on_corrupt="error") as manager:
        yield manager


def as_text(proxies: dict[str, CountingProxy]) -> str:
    return ",".join(f"{name}:{proxy.address}" for name, proxy in proxies.items())


def use(manager: SessionManager, name: str, n_requests: int = 50) -> bool:
    """Count up in a session of one's own; return whether each request found what the one before had stored."""
    cookie = None
    for n in range(n_requests):
        with manager.request(cookie, "POST") as session:
            if session.get("n", 0) != n or session.get("name", name) != name:
                return False
            session.update(name=name, n=n + 1)
            cookie = session.id
    return True


def exit_with(is_right: bool) -> None:
    os._exit(0 if is_right else 1)


def test_row_45_children_forked_after_first_use_and_their_parent_share_no_connection(
    manager: SessionManager, proxies: dict[str, CountingProxy]
) -> None:
    for n in range(10):
        assert use(manager, f"warm{n}", 2)
    before = {name: proxy.n_connections for name, proxy in proxies.items()}
    children = []
    for number in range(3):
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                exit_with(use(manager, f"child{number}"))
            os._exit(2)
        children.append(child)
    is_parent_right = use(manager, "parent")
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert is_parent_right
    assert statuses == [0, 0, 0]
    made = {name: proxy.n_connections - before[name] for name, proxy in proxies.items()}
    assert sum(made.values()) >= 3 * 2, made  # each child to two nodes at least, the parent to none
    assert manager.statistics().node_failures == 0


def test_row_45_a_child_forked_while_threads_use_the_manager_does_not_wait_for_their_locks(
    manager: SessionManager,
) -> None:
    is_over = threading.Event()
    failures: list[str] = []

    def work(name: str) -> None:
        while not is_over.is_set():
            if not use(manager, name, 5):
                failures.append(name)

    threads = [threading.Thread(target=work, args=(f"thread{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    try:
        for number in range(10):
            child = os.fork()
            if child == 0:
                with contextlib.suppress(BaseException):
                    exit_with(use(manager, f"child{number}", 5))
                os._exit(2)
            assert os.waitstatus_to_exitcode(_wait_for(child)) == 0
    finally:
        is_over.set()
        for thread in threads:
            thread.join(30)
    assert failures == []


def test_row_45_a_child_keeps_no_connection_that_another_thread_was_using_and_takes_it_from_nobody(
    manager: SessionManager, proxies: dict[str, CountingProxy], nodes: Nodes
) -> None:
    with manager.request(None, "POST") as session:
        session["user"] = "ada"
    answers: list[object] = []
    reader = threading.Thread(target=lambda: answers.append(manager.load(session.id)))
    for server in nodes.values():
        server.pause()
    try:
        asked = sum(proxy.turns for proxy in proxies.values())
        reader.start()
        deadline = time.monotonic() + START_TIMEOUT_S
        while sum(proxy.turns for proxy in proxies.values()) == asked and time.monotonic() < deadline:
            time.sleep(0.001)
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                exit_with(not _connections_to({proxy.port for proxy in proxies.values()}))
            os._exit(2)
    finally:
        for server in nodes.values():
            server.resume()
    assert os.waitstatus_to_exitcode(_wait_for(child)) == 0
    reader.join(START_TIMEOUT_S)
    assert answers == [{"user": "ada"}]
    assert manager.statistics().node_failures == 0


def _connections_to(ports: set[int]) -> int:
    """Return how many connections to these ports this process has open."""
    n = 0
    for fd in range(256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                with socket.socket(fileno=os.dup(fd)) as sock:
                    n += sock.family is socket.AF_INET and sock.getpeername()[1] in ports
    return n


def _wait_for(child: int) -> int:
    """Return the child's status; one that hangs is killed and fails the test."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


def test_row_45_a_child_makes_connections_of_its_own_also_when_its_local_store_is_gone(
    proxies: dict[str, CountingProxy], tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    settings: dict[str, Any] = {"timeouts": UNHURRIED, "on_cluster_lost": "error", "on_corrupt": "error"}
    with (
        SessionManager(as_text(proxies), local_store=f"sqlite:///{folder / 'sessions.db'}", **settings) as one,
        SessionManager(as_text(proxies), **settings) as other,
    ):
        assert use(one, "warm", 2)
        assert use(other, "warm", 2)
        shutil.rmtree(folder)
        before = sum(proxy.n_connections for proxy in proxies.values())
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                exit_with(use(one, "child") and use(other, "other child"))
            os._exit(2)
        assert os.waitstatus_to_exitcode(_wait_for(child)) == 0
        assert sum(proxy.n_connections for proxy in proxies.values()) - before >= 2 * 2  # two managers, to two nodes
        assert use(one, "parent")


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_row_45_processes_of_multiprocessing_use_the_manager_they_inherit(manager: SessionManager) -> None:
    assert use(manager, "parent", 2)
    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=lambda n=n: exit_with(use(manager, f"process{n}"))) for n in range(3)]
    for process in processes:
        process.start()
    assert use(manager, "parent")
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]


# -- gunicorn


class Gunicorn:
    """Two workers that were forked from a master which had used the manager already."""

    def __init__(self, nodes: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        fd = self._listener.fileno()
        command = ["gunicorn", "--preload", "-w", "2", "-k", "gthread", "--threads", "4"]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command, "-b", f"fd://{fd}", "tests.integration.preloaded_app:app"],
            env={**os.environ, "MSM_FAST_NODES": nodes},
            pass_fds=[fd],
            stderr=subprocess.PIPE,
        )

    def close(self) -> bytes:
        """End it, and return what it said."""
        self._process.terminate()
        _, said = self._process.communicate(timeout=30)
        self._listener.close()
        return said


@pytest.fixture
def gunicorn(proxies: dict[str, CountingProxy]) -> Iterator[Gunicorn]:
    server = Gunicorn(as_text(proxies))
    yield server
    server.close()


def visit(server: Gunicorn, name: str, cookie: str) -> tuple[dict[str, Any], str]:
    """Make one request; return the answer and the cookie to come back with."""
    connection = http.client.HTTPConnection(*server.address, timeout=START_TIMEOUT_S)
    with contextlib.closing(connection):
        connection.request("POST", "/", headers={"X-Name": name, "Cookie": cookie})
        response = connection.getresponse()
        body = response.read()
        assert response.status == 200, body
    fresh = SimpleCookie(response.getheader("Set-Cookie") or "")
    return json.loads(body), "; ".join(f"{key}={morsel.value}" for key, morsel in fresh.items()) or cookie


def test_row_45_workers_of_gunicorn_that_preloads_serve_everyone_their_own_session(
    gunicorn: Gunicorn, proxies: dict[str, CountingProxy]
) -> None:
    pids: set[int] = set()
    failures: list[object] = []

    def be_a_client(number: int) -> None:
        name, cookie = f"client{number}", ""
        try:
            for n in range(30):
                answer, cookie = visit(gunicorn, name, cookie)
                pids.add(answer["pid"])
                if answer["before"] != ({"name": name, "visits": n} if n else {}):
                    failures.append((name, n, answer))
        except BaseException as error:  # noqa: BLE001 - reported in the main thread
            failures.append(error)

    clients = [threading.Thread(target=be_a_client, args=(number,)) for number in range(8)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(60)
    assert failures == []
    assert len(pids) == 2
    assert sum(proxy.n_connections for proxy in proxies.values()) >= 2 + 2 * 2  # the master's, and each worker's own
