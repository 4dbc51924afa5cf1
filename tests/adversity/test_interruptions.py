"""Exceptions that are no `Exception`, at any moment of a request: KeyboardInterrupt, gevent.Timeout.

Row 44 of the fault matrix. The first test breaks a request off at each single call of a socket; the others break off
many at moments of chance, in a process of their own (`interrupted_worker`).
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from msm_fast import SessionManager
from msm_fast.drivers.connection import Connection
from tests.adversity.conftest import Cluster
from tests.adversity.interrupted_worker import ENOUGH
from tests.adversity.visitor import wait_until

pytestmark = pytest.mark.memcached


@pytest.fixture
def manager_class() -> type[SessionManager]:
    """The manager for threads: a loop is not interrupted but cancels, see test_asyncio.py."""
    return SessionManager


class Interrupt(BaseException):
    """What nobody who catches Exception sees."""


class Fuse:
    """Burns down by one before and after each call of a socket, and then interrupts."""

    def __init__(self) -> None:
        self.left: int | None = None

    def burn(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise Interrupt


class Fused:
    """A socket or its poll object whose calls may be interrupted."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._inner, name)
        if name not in ("send", "recv", "poll"):
            return call

        def interruptible(*args: Any) -> Any:
            self._fuse.burn()
            result = call(*args)
            self._fuse.burn()
            return result

        return interruptible


@pytest.fixture
def fuse(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuse]:
    """A fuse at the sockets of all connections that are made from now on."""
    fuse = Fuse()
    make = Connection.__init__

    def make_fused(self: Connection, *args: Any) -> None:
        make(self, *args)
        self._sock = Fused(self._sock, fuse)
        self._poller = Fused(self._poller, fuse)
        self.fd = -1

    monkeypatch.setattr(Connection, "__init__", make_fused)
    return fuse


@pytest.mark.parametrize("has_connections", [True, False])
def test_row_44_an_interruption_at_any_call_of_a_socket_closes_it_and_leaves_nobody_a_reply(
    cluster: Cluster, fuse: Fuse, has_connections: bool
) -> None:
    worker = cluster.worker()
    ada = cluster.visitor_at_home_on("n1", worker, user="ada")
    eve = cluster.visitor_at_home_on("n1", worker, user="eve")
    for n in range(200):
        if not has_connections:
            ada.worker.close()
            ada.worker = eve.worker = cluster.worker()
        fuse.left = n
        try:
            ada.post(n=n)
        except Interrupt:
            assert eve.get() == {"user": "eve"}
            assert ada.get()["user"] == "ada"
            wait_until(lambda: len(cluster.proxies["n1"].links()) <= 1)
        else:
            fuse.left = None
            break
    assert 10 < n < 200
    assert ada.get() == {"user": "ada", "n": n}
    assert ada.worker.statistics().node_failures == 0


def test_row_44_a_sticky_write_that_is_interrupted_at_any_call_of_a_socket_is_made_up_for_by_the_next(
    cluster: Cluster, fuse: Fuse
) -> None:
    worker = cluster.sticky_worker("w1", backup="sync")
    ada = cluster.visitor_at_home_on("n1", worker, user="ada")
    eve = cluster.visitor_at_home_on("n1", worker, user="eve")
    for n in range(200):
        fuse.left = n
        try:
            ada.post(n=n)
        except Interrupt:
            assert ada.get() == {"user": "ada", "n": n, **({"again": n - 1} if n else {})}
            assert ada.post(again=n).status == "stored"
            assert eve.get() == {"user": "eve"}
        else:
            fuse.left = None
            break
    assert 5 < n < 200
    assert worker.statistics().node_failures == 0
    ada.worker = cluster.sticky_worker("w2")
    assert ada.get() == {"user": "ada", "n": n, "again": n - 1}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("signals", {}),
        ("greenlets", {}),
        ("signals", {"sticky": True}),
        ("signals", {"sticky": True, "backup": "sync"}),
        ("greenlets", {"sticky": True, "backup": "sync"}),
    ],
    ids=["signals", "greenlets", "signals_sticky", "signals_sticky_sync", "greenlets_sticky_sync"],
)
def test_row_44_requests_that_are_broken_off_by_the_hundred_mix_up_nothing(
    cluster: Cluster, kind: str, settings: dict[str, object]
) -> None:
    nodes = ",".join(f"{name}:{server.address}" for name, server in cluster.servers.items())
    ended = subprocess.run(
        [sys.executable, "-m", "tests.adversity.interrupted_worker", kind, nodes, json.dumps(settings)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    outcome = json.loads(ended.stdout)
    assert outcome["wrong"] == []
    assert min(outcome["interrupted"], outcome["completed"]) >= ENOUGH
    assert outcome["open_sockets"] <= outcome["most_at_once"]
