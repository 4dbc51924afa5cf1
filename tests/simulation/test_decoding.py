"""Values in a session that cannot be decoded."""

from collections.abc import Callable

import pytest

from msm_fast import register_type
from msm_fast._core.record import decode_record, encode_record
from msm_fast.engine.changes import Base, merge
from msm_fast.engine.effects import Exchange
from msm_fast.engine.serialization import decode_attributes, encode_attributes
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import REPLAY, change, heal, lose
from tests.simulation.test_saving import loaded, read
from tests.simulation.test_serialization import events_of, kinds
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


class Color:
    """A type whose values can be stored, and read back only while nobody says otherwise."""

    is_readable = True


def read_color(content: str) -> Color:
    if not Color.is_readable:
        raise ValueError("no such color")
    return Color()


register_type(Color, "test.simulation.Color", lambda color: "red", read_color)


@pytest.fixture
def unreadable(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> str:
    """The id of a session whose color cannot be read any more."""
    session_id = worker.store(user="ada", color=Color())
    monkeypatch.setattr(Color, "is_readable", False)
    return session_id


def test_a_value_that_cannot_be_read_is_none_and_its_attribute_is_told_once_a_minute(
    driver: SimulatedDriver, worker: Worker, unreadable: str
) -> None:
    told = events_of(worker)
    for n_minutes in (1, 2):
        for _ in range(2):
            session = loaded(worker, unreadable)
            assert dict(session) == {"user": "ada", "color": None}
            assert session["color"] is None
            assert worker.save(session).status == "unchanged"
            assert kinds(told) == ["unserializable"] * n_minutes
        driver.clock.advance(61)
    assert "'color'" in told[0].detail
    assert "ValueError" in told[0].detail
    assert told[0].session is not None
    assert told[0].session in told[0].detail
    assert unreadable.split("-")[0] not in told[0].detail
    assert worker.ctx.counters.snapshot().unserializable == 4
    assert not worker.ctx.is_stopped


def test_it_is_told_also_if_the_request_then_fails(worker: Worker, unreadable: str) -> None:
    told = events_of(worker)
    with pytest.raises(AttributeError):
        loaded(worker, unreadable)["color"].name  # noqa: B018 - what an application would do
    assert kinds(told) == ["unserializable"]


def test_what_cannot_be_read_stays_stored_until_it_is_replaced(
    worker: Worker, unreadable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = loaded(worker, unreadable)
    assert session["color"] is None
    session["user"] = "grace"
    worker.save(session)
    with monkeypatch.context() as patched:
        patched.setattr(Color, "is_readable", True)
        assert isinstance(read(worker, unreadable)["color"], Color)
    session["color"] = "green"
    worker.save(session)
    assert read(worker, unreadable) == {"user": "grace", "color": "green"}


def test_what_is_not_read_is_not_told(worker: Worker, unreadable: str) -> None:
    told = events_of(worker)
    session = loaded(worker, unreadable)
    session["user"] = "grace"
    worker.save(session)
    assert told == []


def test_what_cannot_be_read_of_another_requests_record_is_told_after_a_merge(
    worker: Worker, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = worker.store(a=0)
    rival = make_worker()

    def rival_saves(exchange: Exchange) -> None:
        worker.driver.before_exchange = None
        theirs = loaded(rival, session_id)
        theirs["color"] = Color()
        rival.save(theirs)

    told = events_of(worker)
    session = loaded(worker, session_id)
    session["a"] = 1
    worker.driver.before_exchange = rival_saves
    assert worker.save(session).status == "merged"
    monkeypatch.setattr(Color, "is_readable", False)
    assert session["color"] is None
    assert kinds(told) == ["conflict", "unserializable"]


@pytest.mark.parametrize("generation", [1, 9])
def test_a_merge_with_a_copy_stored_beside_ours_leaves_alone_what_cannot_be_read(
    worker: Worker, unreadable: str, monkeypatch: pytest.MonkeyPatch, generation: int
) -> None:
    session = loaded(worker, unreadable)
    stored = session.state.stored
    assert stored is not None
    winner = decode_record(
        encode_record(b"k", stored.body, generation=1, created_ms=0, accessed_ms=0, lineage=(7,)), b"k"
    )
    session["user"] = "grace"
    assert session["color"] is None
    base = Base(generation, stored.nonce, stored.lineage)
    assert base.is_beside(winner)
    merge(worker.ctx, session.state, winner, base)
    monkeypatch.setattr(Color, "is_readable", True)
    attributes = decode_attributes(worker.ctx, session.state.session_id, encode_attributes(worker.ctx, session.state))
    assert isinstance(attributes["color"], Color)
    assert attributes["user"] == "grace"


def test_what_cannot_be_read_of_what_was_kept_in_an_outage_takes_no_value_away(
    driver: SimulatedDriver, make_worker: MakeWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(**REPLAY)
    session_id = worker.store(color="blue")
    lose(driver, worker)
    assert change(worker, session_id, color=Color(), user="ada") == "local"
    monkeypatch.setattr(Color, "is_readable", False)
    heal(driver, worker)
    assert read(make_worker(), session_id) == {"color": "blue", "user": "ada"}
