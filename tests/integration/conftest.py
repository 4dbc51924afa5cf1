from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from msm_fast import Node, SessionManager
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.connection import Connection
from tests.memcached import Memcached
from tests.threaded import ThreadedManager
from tests.timeouts import UNHURRIED

Nodes = dict[str, Memcached]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Three real memcached processes n1, n2, n3."""
    started: Nodes = {}
    try:
        for name in ("n1", "n2", "n3"):
            started[name] = Memcached()
        yield started
    finally:
        for server in started.values():
            server.stop()


@pytest.fixture
def start() -> Iterator[Callable[..., Any]]:
    """Return a function that stops, or closes, what it is given when the test ends."""
    with ExitStack() as stack:

        def start(one: Any) -> Any:
            stack.callback(one.stop if isinstance(one, Memcached) else one.close)
            return one

        yield start


def have_no_plain_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have new connections used one after the other, as those are that speak TLS or were made by gevent."""
    connect = BlockingDriver._connect

    def connect_unplainly(driver: BlockingDriver, node: Node, deadline: float) -> Connection:
        connection = connect(driver, node, deadline)
        connection.fd = -1
        return connection

    monkeypatch.setattr(BlockingDriver, "_connect", connect_unplainly)


@pytest.fixture(params=[SessionManager, ThreadedManager], ids=["threads", "asyncio"])
def manager_class(request: pytest.FixtureRequest) -> Any:
    """The manager for threads, then that for asyncio behind the same methods. A module may have one of its own."""
    return request.param


@pytest.fixture
def make_manager(nodes: Nodes, manager_class: Any) -> Iterator[Callable[..., SessionManager]]:
    """Return a function that makes managers of those nodes, as separate workers would, unhurried if not told else."""
    managers: list[SessionManager] = []

    def make(**settings: Any) -> SessionManager:
        text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
        managers.append(manager_class(text, **{"timeouts": UNHURRIED, **settings}))
        return managers[-1]

    yield make
    for manager in managers:
        manager.close()


@pytest.fixture
def manager(make_manager: Callable[..., SessionManager]) -> SessionManager:
    return make_manager()
