"""What must hold whatever befalls nodes and workers, over many seeded schedules.

A failing seed is named in the error; `python -m tests.simulation SEED` runs it alone and prints every exchange;
`make simulate` runs 100,000.
"""

import logging
from collections.abc import Iterator

import pytest

from tests.simulation.schedules.running import run_seed

SEEDS = 2000
SEEDS_PER_TEST = 100


@pytest.fixture(autouse=True)
def silence() -> Iterator[None]:
    """Every schedule would log its faults."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_every_invariant_holds(first: int) -> None:
    results = [run_seed(seed) for seed in range(first, first + SEEDS_PER_TEST)]
    assert not {result.seed: result.violations for result in results if result.violations}


@pytest.mark.parametrize("seed", [8_198, 15_050, 27_482, 362_060])
def test_what_failed_once_holds_now(seed: int) -> None:
    assert not run_seed(seed).violations
