"""Each fuzz target from the corpus, for a few seconds or FUZZ_SECONDS, as continuous integration says."""

import os

import pytest

from tests.fuzz import building

SECONDS = int(os.environ.get("FUZZ_SECONDS", "5"))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(building.missing()), reason=building.missing()),
]


@pytest.mark.parametrize("target", building.TARGETS)
def test_the_properties_of_a_kernel_hold_for_what_the_fuzzer_finds(target, tmp_path):
    done = building.fuzz(building.build(target, tmp_path), tmp_path / "found", SECONDS)
    assert done.returncode == 0, done.stderr[-5000:]
