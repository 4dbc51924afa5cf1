from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msm_fast import DistributionState, NearCacheSettings, Reconnect, SessionId, SessionManager, Timeouts
from tests.adversity.proxy import FaultProxy
from tests.adversity.stopwatch import Stopwatch
from tests.adversity.visitor import Visitor, wait_until
from tests.integration.conftest import manager_class
from tests.memcached import Memcached

__all__ = ["manager_class"]

NAMES = ("n1", "n2", "n3")

UNHURRIED = Timeouts(connect=2, operation=2, request=5)
"""As in tests/timeouts.py, but for faults that some tests here wait out."""
FALLS_BACK = {"on_cluster_lost": "local", "on_corrupt": "local"}
"""What an application has by default; the workers here must ask for it."""
FORGETFUL = NearCacheSettings(max_bytes=1)
"""For what is about values on the wire: a worker is not sent again what it has kept."""


class Cluster:
    """Three memcached processes, each behind a proxy, and the workers that use them."""

    def __init__(self, stopwatch: Stopwatch, manager_class: Any, *options: str) -> None:
        self._stopwatch = stopwatch
        self._manager_class = manager_class
        self._options = options
        self.servers: dict[str, Memcached] = {}
        self.proxies: dict[str, FaultProxy] = {}
        self._managers: list[SessionManager] = []

    def start(self) -> None:
        for name in NAMES:
            self.servers[name] = Memcached(*self._options)
            self.proxies[name] = FaultProxy(self.servers[name].port)

    def close(self) -> None:
        for manager in self._managers:
            manager.close()
        for proxy in self.proxies.values():
            proxy.close()
        for server in self.servers.values():
            server.stop()

    def worker(self, *, is_direct: bool = False, **settings: Any) -> SessionManager:
        """Return the manager of one more worker process, which reaches the nodes through the proxies, or directly."""
        ends = self.servers if is_direct else self.proxies
        text = ",".join(f"{name}:{end.address}" for name, end in ends.items())
        return self.worker_on(text, **settings)

    def worker_on(self, nodes: str, **settings: Any) -> SessionManager:
        """Return the manager of a worker with nodes of its own; it is closed with the cluster."""
        settings = {"timeouts": UNHURRIED, "reconnect": Reconnect(first=0.1, cap=0.2), **settings}
        settings = {"on_cluster_lost": "error", "on_corrupt": "error", **settings}
        self._managers.append(self._manager_class(nodes, **settings))
        return self._managers[-1]

    def sticky_worker(self, route: str, **settings: Any) -> SessionManager:
        """Return the manager of one more worker process, which serves sessions from its memory, in outages too."""
        return self.worker(**{**FALLS_BACK, "sticky": True, "route": route, **settings})

    def visitor(self, worker: SessionManager) -> Visitor:
        """Return a client with no cookie yet, whose requests go to worker."""
        return Visitor(worker, self._stopwatch)

    def visitor_at_home_on(self, node: str, worker: SessionManager, **attributes: object) -> Visitor:
        """Return a client with a session of those attributes, at home on node."""
        while True:
            visitor = self.visitor(worker)
            visitor.post(**attributes)
            if home_of(visitor.cookie) == node:
                return visitor

    def refuse_all(self) -> None:
        """Let every node refuse connections and reset those that are there."""
        for proxy in self.proxies.values():
            proxy.refuse()

    def black_hole_all(self) -> None:
        """Let no node answer any more."""
        for proxy in self.proxies.values():
            proxy.black_hole()

    def listen_all(self) -> None:
        """Take back `refuse_all`, and leave all other faults."""
        for proxy in self.proxies.values():
            proxy.listen()

    def heal_all(self) -> None:
        """Let every node be reached again."""
        for proxy in self.proxies.values():
            proxy.heal()


def home_of(cookie: str | None) -> str:
    """Return the node that a cookie names."""
    parsed = SessionId.parse(cookie)
    assert parsed is not None
    assert parsed.node is not None
    return parsed.node


def key_of(cookie: str | None) -> str:
    """Return the key of the session in memcached."""
    parsed = SessionId.parse(cookie)
    assert parsed is not None
    return parsed.plain


def is_normal(worker: SessionManager) -> bool:
    """Whether the worker uses all nodes."""
    return worker.distribution.state is DistributionState.DISTRIBUTED


def settle(worker: SessionManager) -> None:
    """Wait until all that requests left behind is done."""
    wait_until(lambda: not len(worker._ctx.behind))


@pytest.fixture
def stopwatch() -> Iterator[Stopwatch]:
    stopwatch = Stopwatch()
    yield stopwatch
    stopwatch.close()


@pytest.fixture
def make_cluster(stopwatch: Stopwatch, manager_class: Any) -> Iterator[Callable[..., Cluster]]:
    """Return a function that starts a cluster, of servers with the options it is given."""
    made: list[Cluster] = []

    def make(*options: str) -> Cluster:
        made.append(Cluster(stopwatch, manager_class, *options))
        made[-1].start()
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture
def cluster(make_cluster: Callable[..., Cluster]) -> Cluster:
    return make_cluster()
