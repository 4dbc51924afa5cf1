"""Many threads and many greenlets on one manager: each only ever sees its own session."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from msm_fast import SessionManager
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.memcached

MakeManager = Callable[..., SessionManager]

SECONDS = 2.0


def count_up(manager: SessionManager, name: str, until: float) -> int:
    """Make requests with a session of one's own that holds name and a count; return how many.

    Raises: AssertionError as soon as one finds anything else.
    """
    cookie, n = None, 0
    while time.monotonic() < until:
        with manager.request(cookie, "POST") as session:
            assert dict(session) == ({"name": name, "n": n} if n else {})
            n += 1
            session.update(name=name, n=n)
            cookie = session.id
        with manager.request(cookie) as session:
            assert dict(session) == {"name": name, "n": n}
    return n


def test_32_threads_each_see_their_own_session_only(make_manager: MakeManager) -> None:
    manager = make_manager()
    counts: dict[int, int] = {}
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            counts[number] = count_up(manager, f"thread{number}", time.monotonic() + SECONDS)
        except BaseException as error:  # noqa: BLE001 - reported in the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(counts) == 32
    assert min(counts.values()) >= 1
    assert manager.statistics().conflicts == 0
    assert manager.statistics().node_failures == 0


GREENLETS = """
from gevent import monkey

monkey.patch_all()

import json, sys, time
import gevent
from msm_fast import SessionManager
from tests.integration.test_concurrency import SECONDS, count_up
from tests.timeouts import UNHURRIED

manager = SessionManager(sys.argv[1], timeouts=UNHURRIED, on_cluster_lost="error", on_corrupt="error")
until = time.monotonic() + SECONDS
greenlets = [gevent.spawn(count_up, manager, f"greenlet{number}", until) for number in range(200)]
gevent.joinall(greenlets, raise_error=True)
counts = manager.statistics()
manager.close()
print(json.dumps([len(greenlets), min(g.value for g in greenlets), counts.conflicts, counts.node_failures]))
"""


def test_200_greenlets_each_see_their_own_session_only(nodes: Nodes) -> None:
    text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
    ended = subprocess.run(
        [sys.executable, "-c", GREENLETS, text], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    n_greenlets, fewest, conflicts, node_failures = json.loads(ended.stdout)
    assert (n_greenlets, conflicts, node_failures) == (200, 0, 0)
    assert fewest >= 1


def test_greenlets_wait_for_the_network_at_the_same_time(nodes: Nodes) -> None:
    program = """
from gevent import monkey

monkey.patch_all()

import json, sys, time
import gevent
from msm_fast import SessionManager, Timeouts

slow = Timeouts(connect=0.5, operation=0.5, request=1)
manager = SessionManager(sys.argv[1], timeouts=slow, on_cluster_lost="error")
started = time.monotonic()
gevent.joinall([gevent.spawn(lambda: manager.load("0" * 32 + "-n1")) for _ in range(20)])
print(json.dumps(time.monotonic() - started))
manager.close()
"""
    text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
    for server in nodes.values():
        server.pause()
    try:
        ended = subprocess.run(
            [sys.executable, "-c", program, text], capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        for server in nodes.values():
            server.resume()
    assert json.loads(ended.stdout) < 5, ended.stderr  # one after the other they would take 20 seconds


MADE_BEFORE_THE_PATCHES = """
import json, sys, time

from msm_fast import Reconnect, SessionManager
from tests.timeouts import UNHURRIED

manager = SessionManager(sys.argv[1], timeouts=UNHURRIED, reconnect=Reconnect(first=20, cap=20))

from gevent import monkey

monkey.patch_all()

import gevent


def use():
    with manager.request(None, "POST") as session:
        session["n"] = 1


def find_longest_wait():
    longest, until = 0.0, time.monotonic() + 1
    while (started := time.monotonic()) < until:
        gevent.sleep(0.001)
        longest = max(longest, time.monotonic() - started)
    return longest


watch = gevent.spawn(find_longest_wait)
gevent.joinall([gevent.spawn(use) for _ in range(40)], raise_error=True)
watch.join()
print(json.dumps([watch.value, manager.distribution.state.name]))
manager.close()
"""


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_goes_on_in_the_background_holds_no_greenlet_up_where_gevent_comes_after_the_manager(
    nodes: Nodes, host: str
) -> None:
    """As it is with `gunicorn -k gevent --preload`, which patches in the worker, when the application is there."""
    nodes["n3"].kill()
    text = ",".join(f"{name}:{host}:{server.port}" for name, server in nodes.items())
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", MADE_BEFORE_THE_PATCHES, text],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    longest_wait_s, state = json.loads(ended.stdout)
    assert state == "DEGRADED"  # so there is a thread that waits until it is time for a probe
    assert longest_wait_s < 5
