"""Which of two records stands on the other."""

import pytest

from msm_fast._core.record import Record, decode_record, encode_record
from msm_fast.engine.changes import Base

BASE = Base(generation=5, nonce=50, lineage=(50, 40, 30))


def record(generation: int, *lineage: int) -> Record:
    return decode_record(
        encode_record(b"k", b"", generation=generation, created_ms=0, accessed_ms=0, lineage=lineage), b"k"
    )


@pytest.mark.parametrize(
    "winner",
    [
        record(6, 60, 50, 40, 30),
        record(7, 70, 60, 50),
        record(40, 400, 390, 380),  # the base is too long ago to be named
        record(65_541, 60, 50, 40),
    ],
)
def test_what_names_the_base_or_is_much_later_stands_on_it(winner: Record) -> None:
    assert not BASE.is_beside(winner)


@pytest.mark.parametrize(
    "winner",
    [
        record(6, 60, 40, 30),  # from the same write, past the base
        record(65_541, 60, 30),
        record(5, 55, 45),  # no later than the base
        record(4, 44),
    ],
)
def test_what_goes_back_past_the_base_or_is_no_later_was_made_beside_it(winner: Record) -> None:
    assert BASE.is_beside(winner)


def test_of_two_that_go_back_to_one_write_the_one_with_the_higher_generation_prevails() -> None:
    assert BASE.prevails_over(record(4, 44, 40))
    assert not BASE.prevails_over(record(6, 60, 40))
    assert not BASE.prevails_over(record(4, 44)), "it is not known to go back to the same write"
