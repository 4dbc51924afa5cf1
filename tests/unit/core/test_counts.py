import pytest

from msm_fast._core.counts import Counts


def test_counts_begin_at_0_and_grow():
    counts = Counts(["loaded", "stored"])
    counts.add("loaded")
    counts.add("loaded", 3)
    assert counts.by_name() == {"loaded": 4, "stored": 0}


def test_what_is_not_counted_is_an_error_and_changes_nothing():
    counts = Counts(["loaded"])
    with pytest.raises(KeyError):
        counts.add("lost")
    assert counts.by_name() == {"loaded": 0}


def test_what_was_given_out_does_not_change():
    counts = Counts(["loaded"])
    before = counts.by_name()
    counts.add("loaded")
    assert before == {"loaded": 0}


def test_a_count_has_no_end():
    counts = Counts(["bytes"])
    counts.add("bytes", 2**63)
    counts.add("bytes", 2**63)
    assert counts.by_name()["bytes"] == 2**64
