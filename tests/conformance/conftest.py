from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import SessionManager
from tests.conformance.client import WebWorker
from tests.conformance.sticky_worker import PromptWorker
from tests.conformance.traffic import Traffic
from tests.integration.conftest import make_manager, manager, manager_class, nodes
from tests.simulation.conftest import driver, worker
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker, make_settings

__all__ = ["driver", "make_manager", "manager", "manager_class", "nodes", "worker"]


@pytest.fixture(params=["non-sticky", "sticky"])
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The settings of either mode."""
    return {"sticky": request.param == "sticky"}


@pytest.fixture
def make_worker(driver: SimulatedDriver) -> Callable[..., Worker]:
    """Return a function that makes workers on simulated nodes, each with its own view of their health."""
    seeds = iter(range(1, 1000))

    def make(**settings: Any) -> Worker:
        kind = PromptWorker if settings.get("sticky") else Worker
        return kind(driver, make_settings(**settings), seed=next(seeds))

    return make


@pytest.fixture
def traffic(driver: SimulatedDriver) -> Traffic:
    """What the simulated workers send."""
    return Traffic(driver)


@pytest.fixture
def make_web_worker(make_manager: Callable[..., SessionManager]) -> Callable[..., WebWorker]:
    """Return a function that makes workers of the site on real memcached nodes n1, n2 and n3."""

    def make(**settings: Any) -> WebWorker:
        return WebWorker(make_manager(**settings))

    return make
