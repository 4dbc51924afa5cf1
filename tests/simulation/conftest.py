from collections.abc import Callable
from typing import Any

import pytest

from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker, make_settings


@pytest.fixture
def driver() -> SimulatedDriver:
    """Three nodes n1, n2, n3."""
    return SimulatedDriver(["n1", "n2", "n3"], VirtualClock())


@pytest.fixture
def make_worker(driver: SimulatedDriver) -> Callable[..., Worker]:
    """Return a function that makes workers on those nodes, each with its own view of their health."""
    seeds = iter(range(1, 1000))

    def make(**settings: Any) -> Worker:
        return Worker(driver, make_settings(**settings), seed=next(seeds))

    return make


@pytest.fixture
def worker(make_worker: Callable[..., Worker]) -> Worker:
    return make_worker()
