"""Attributes that are not to be stored (their numbered behaviours: tests/conformance)."""

from collections.abc import Callable

import pytest

from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


@pytest.fixture
def filtering(make_worker: MakeWorker) -> Worker:
    return make_worker(attribute_filter="foo|bar")


def test_only_attributes_that_the_filter_matches_as_a_whole_are_stored(filtering: Worker) -> None:
    session = filtering.create(foo=1, bar=2, baz=object(), foobar=4)
    assert filtering.save(session).status == "stored"
    assert set(session) == {"foo", "bar", "baz", "foobar"}, "this request still has the others"
    assert read(filtering, session.id) == {"foo": 1, "bar": 2}


def test_a_change_of_others_alone_writes_nothing(driver: SimulatedDriver, filtering: Worker) -> None:
    session_id = filtering.store(foo=1)
    session = loaded(filtering, session_id)
    before = driver.exchanges
    session["baz"] = [1]
    assert filtering.save(session).status == "unchanged"
    session["baz"].append(2)
    assert filtering.save(session).status == "unchanged"
    assert driver.exchanges == before
    assert session["baz"] == [1, 2]


def test_a_new_session_with_others_alone_is_not_stored(driver: SimulatedDriver, filtering: Worker) -> None:
    session = filtering.create(baz=1)
    assert filtering.save(session).status == "unchanged"
    assert driver.exchanges == 0


def test_a_logout_is_carried_out_though_only_others_are_written_after_it(filtering: Worker) -> None:
    session_id = filtering.store(foo=1)
    session = loaded(filtering, session_id)
    session.invalidate()
    session["baz"] = "good bye"
    filtering.save(session)
    assert filtering.load(session_id) is None


def test_others_are_still_there_after_a_merge(filtering: Worker, make_worker: MakeWorker) -> None:
    session_id = filtering.store(foo=1, bar=1)
    session, theirs = loaded(filtering, session_id), loaded(make_worker(), session_id)
    session["foo"], session["baz"] = 2, 3
    theirs["bar"] = 4
    make_worker().save(theirs)
    assert filtering.save(session).status == "merged"
    assert dict(session) == {"foo": 2, "bar": 4, "baz": 3}
    assert read(filtering, session_id) == {"foo": 2, "bar": 4}
