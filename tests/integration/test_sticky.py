"""Sticky sessions on real nodes: what is written behind the requests arrives, whatever becomes of workers and nodes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import DistributionState, Reconnect, SessionManager, Timeouts
from tests.conformance.test_node_failover import has_item
from tests.integration.conftest import Nodes
from tests.integration.test_manager import home_of, wait_until

pytestmark = [
    pytest.mark.memcached,
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]

MakeManager = Callable[..., SessionManager]


def put(manager: SessionManager, cookie: str | None = None, **attributes: Any) -> str:
    """Serve a request that writes; return the cookie that its client has then."""
    with manager.request(cookie, "POST") as session:
        session.update(attributes)
        return session.id


def seen(manager: SessionManager, cookie: str) -> dict[str, Any]:
    with manager.request(cookie, "GET") as session:
        return dict(session)


def settle(manager: SessionManager) -> None:
    wait_until(lambda: len(manager._ctx.behind) == 0)


# -- a worker dies

WORKER = """
import sys
from msm_fast import SessionManager
manager = SessionManager(sys.argv[1], sticky=True, route="w1")
with manager.request(None, "POST") as session:
    session["user"] = "ada"
    print(session.id, flush=True)
"""


class Worker:
    """Another process, which stores a session and then does what lines say. cookie: of that session."""

    def __init__(self, nodes: Nodes, *lines: str) -> None:
        text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER + "\n".join(lines), text],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.cookie = self.read()

    def read(self) -> str:
        """Return the next line that the process prints."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go_on(self) -> None:
        """Let the process go on that waits for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.process.kill()
        with self.process:
            pass


WAIT_UNTIL_WRITTEN = """
while len(manager._ctx.behind):
    pass
print("written", flush=True)
input()
"""


def test_a_session_survives_the_death_of_its_worker(nodes: Nodes, make_manager: MakeManager) -> None:
    with Worker(nodes, WAIT_UNTIL_WRITTEN) as worker:
        assert worker.read() == "written"
        worker.process.kill()
        worker.process.wait(10)
    other = make_manager(sticky=True, route="w2")
    with other.request(worker.cookie) as session:
        assert dict(session) == {"user": "ada"}
        assert session.id_changed
        assert session.id == worker.cookie.replace(".w1", ".w2")


def test_at_the_end_of_the_interpreter_what_was_not_written_yet_is(nodes: Nodes, make_manager: MakeManager) -> None:
    with Worker(
        nodes,
        "for n in range(200):",
        "    with manager.request(session.id, 'POST') as session:",
        "        session['n'] = n",
    ) as worker:
        assert worker.process.wait(20) == 0
    assert seen(make_manager(sticky=True, route="w2"), worker.cookie) == {"user": "ada", "n": 199}


def test_the_end_of_the_interpreter_does_not_wait_for_ever_for_nodes_that_hang(nodes: Nodes) -> None:
    with Worker(
        nodes,
        WAIT_UNTIL_WRITTEN,
        "with manager.request(session.id, 'POST') as session:",
        "    session['n'] = 1",
    ) as worker:
        assert worker.read() == "written"
        for server in nodes.values():
            server.pause()
        worker.go_on()
        assert worker.process.wait(15) == 0


# -- a node dies


def test_a_session_whose_nodes_die_is_served_from_memory_and_stored_again_when_they_are_back(
    nodes: Nodes, make_manager: MakeManager
) -> None:
    manager = make_manager(sticky=True, reconnect=Reconnect(first=0.05, cap=0.1, on_reconnect="replay"))
    cookie = put(manager, n=0)
    settle(manager)
    for server in nodes.values():
        server.kill()
    for n in range(1, 20):
        cookie = put(manager, cookie, n=n)
        assert seen(manager, cookie) == {"n": n}
    for server in nodes.values():
        server.start()
    wait_until(lambda: manager.distribution.state is DistributionState.DISTRIBUTED)
    put(manager, cookie, last=True)
    settle(manager)
    assert seen(make_manager(), cookie) == {"n": 19, "last": True}


def test_a_session_that_is_only_read_gets_its_lost_copies_back(nodes: Nodes, make_manager: MakeManager) -> None:
    manager = make_manager(sticky=True, max_inactive=20, reconnect=Reconnect(first=0.05, cap=0.1))
    cookie = put(manager, n=0)
    settle(manager)
    home = home_of(cookie)
    nodes[home].kill()
    nodes[home].start()
    assert not has_item(nodes, home, cookie)

    def is_back() -> bool:
        assert seen(manager, cookie) == {"n": 0}
        return has_item(nodes, home, cookie)

    wait_until(is_back)


# -- one process


def test_threads_that_write_to_one_session_lose_nothing(nodes: Nodes, make_manager: MakeManager) -> None:
    manager, n_threads, n_requests = make_manager(sticky=True), 8, 50
    cookie = put(manager, start=True)
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for n in range(n_requests):
                with manager.request(cookie, "POST") as session:
                    assert session.get(f"t{number}", n) == n
                    session[f"t{number}"] = n + 1
        except BaseException as error:  # noqa: BLE001 - told by the test, whatever it is
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    expected = {"start": True, **{f"t{number}": n_requests for number in range(n_threads)}}
    assert seen(manager, cookie) == expected
    settle(manager)
    assert seen(make_manager(), cookie) == expected


def test_row_45_a_forked_child_leaves_its_parent_s_writes_to_the_parent(
    nodes: Nodes, make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, may_write = make_manager(sticky=True, timeouts=Timeouts(request=10)), threading.Event()
    carry_out = manager._writer._run
    monkeypatch.setattr(manager._writer, "_run", lambda *job: may_write.wait(10) and carry_out(*job))
    cookie = put(manager, by="parent")
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            may_write.set()
            os.write(theirs, put(manager, by="child").encode())
            manager.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    of_the_child = os.read(ours, 100).decode()
    os.close(ours)
    os.close(theirs)
    other = make_manager()
    assert seen(other, of_the_child) == {"by": "child"}
    assert other.load(cookie) is None
    may_write.set()
    settle(manager)
    assert seen(other, cookie) == {"by": "parent"}


# -- not sticky


def test_without_sticky_sessions_asynchronous_backups_arrive_behind_the_request(
    nodes: Nodes, make_manager: MakeManager
) -> None:
    manager = make_manager(backup="async")
    session = manager.create()
    session["n"] = 0
    result = manager.save(session)
    assert (result.status, result.backups) == ("stored", ())
    wait_until(lambda: sum(has_item(nodes, name, session.id) for name in nodes) == 2)
    settle(manager)
    nodes[home_of(session.id)].kill()
    assert seen(make_manager(), session.id) == {"n": 0}


def test_closing_waits_for_asynchronous_backups(nodes: Nodes, make_manager: MakeManager) -> None:
    manager = make_manager(backup="async")
    cookies = [put(manager, n=n) for n in range(50)]
    started = time.monotonic()
    manager.close()
    assert time.monotonic() - started < 5
    assert {sum(has_item(nodes, name, cookie) for name in nodes) for cookie in cookies} == {2}
