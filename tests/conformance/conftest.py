from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import SessionManager
from tests.conformance.client import WebWorker
from tests.conformance.traffic import Traffic
from tests.integration.conftest import make_manager, manager, nodes
from tests.simulation.conftest import driver, make_worker, worker
from tests.simulation.driver import SimulatedDriver

__all__ = ["driver", "make_manager", "make_worker", "manager", "nodes", "worker"]


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
