from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msm_fast import SessionManager
from tests.memcached import Memcached

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
def make_manager(nodes: Nodes) -> Iterator[Callable[..., SessionManager]]:
    """Return a function that makes managers of those nodes, as separate workers would."""
    managers: list[SessionManager] = []

    def make(**settings: Any) -> SessionManager:
        text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
        managers.append(SessionManager(text, **settings))
        return managers[-1]

    yield make
    for manager in managers:
        manager.close()


@pytest.fixture
def manager(make_manager: Callable[..., SessionManager]) -> SessionManager:
    return make_manager()
