"""Which attributes are stored: those whose names the filter matches."""

from collections.abc import Callable

import pytest

from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import holders, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


@pytest.fixture
def filtering(make_worker: MakeWorker) -> Worker:
    return make_worker(attribute_filter="^(foo|bar)$")


def values_of(driver: SimulatedDriver, session_id: str) -> set[bytes]:
    copies = [driver.nodes[node].server.peek(key_of(session_id)) for node in holders(driver, session_id)]
    return {copy.value for copy in copies if copy is not None}


def test_msm_090_only_attributes_that_pass_the_filter_count_as_changes(
    driver: SimulatedDriver, filtering: Worker
) -> None:
    session_id = filtering.store(foo=1)
    before = values_of(driver, session_id)
    session = loaded(filtering, session_id)
    session["baz"] = 2
    assert filtering.save(session).status == "unchanged"
    assert values_of(driver, session_id) == before
    session["bar"] = 3
    assert filtering.save(session).status == "stored"


def test_msm_091_only_attributes_that_pass_the_filter_are_handed_to_the_serializer_and_stored(
    filtering: Worker,
) -> None:
    session_id = filtering.store(foo=1, bar=2, baz=object())
    assert read(filtering, session_id) == {"foo": 1, "bar": 2}


def test_msm_092_what_does_not_pass_the_filter_is_not_stored_when_a_lifetime_is_extended(
    driver: SimulatedDriver, filtering: Worker
) -> None:
    session_id = filtering.store(foo=1, baz=2)
    before = values_of(driver, session_id)
    for _ in range(10):
        driver.clock.advance(900)
        session = loaded(filtering, session_id)
        session["baz"] = 3
        filtering.save(session)
    assert values_of(driver, session_id) == before
    assert read(filtering, session_id) == {"foo": 1}
