"""Rounds of work leave no memory behind and no reference too many or too few."""

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest

from tests.leaks import rounds

N_ROUNDS = 50
MOST_SPANS = 20
# Smaller than the smallest object, once a round.
BYTES_A_ROUND = 16


def run(work, n_rounds):
    for _ in range(n_rounds):
        work()
    gc.collect()


def n_without_growth(grown):
    return sum(of_span < BYTES_A_ROUND * N_ROUNDS for of_span in grown)


@pytest.mark.parametrize("work", rounds.ROUNDS, ids=lambda work: work.__name__)
def test_rounds_leave_no_memory_behind(work):
    """A leak grows in every span. Python itself takes some hundred rounds until its free lists are as they stay."""
    run(work, 5)
    tracemalloc.start()
    try:
        run(work, N_ROUNDS)
        grown = []
        while len(grown) < MOST_SPANS and n_without_growth(grown) < 2:
            before = tracemalloc.get_traced_memory()[0]
            run(work, N_ROUNDS)
            grown.append(tracemalloc.get_traced_memory()[0] - before)
    finally:
        tracemalloc.stop()
    assert n_without_growth(grown) == 2, grown


@pytest.mark.parametrize("work", rounds.ROUNDS, ids=lambda work: work.__name__)
def test_rounds_leave_every_reference_count_as_it_was(work):
    """A reference to None that is never given back takes no memory, and one too many given back ends in a crash."""
    held = [None, True, False, (), "", b"", 0, rounds.BODY, rounds.RECORD, rounds.ENCODED, rounds.REPLIES, rounds.NODES]
    held += [*rounds.VALUES, *rounds.UNENCODABLE, *rounds.COMMANDS, *rounds.NODES, rounds.Odd]
    run(work, 5)
    before = [sys.getrefcount(thing) for thing in held]
    run(work, N_ROUNDS)
    after = [sys.getrefcount(thing) for thing in held]
    moved = [(thing, a - b) for thing, a, b in zip(held, after, before, strict=True) if abs(a - b) >= N_ROUNDS // 2]
    assert moved == []


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_process_that_does_everything_again_and_again_does_not_grow():
    command = [sys.executable, "-m", "tests.leaks.rounds", "150"]
    root = Path(__file__).parents[2]
    grown_kb = int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout)
    assert grown_kb < 1024
