"""What is stored comes back: the session's own fields, its attributes, and what cannot be stored or read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest

from msm_fast import ApplicationStopped, AttributeMap, Event, SerializationError, SessionManager, register_type
from msm_fast._core.record import decode_record
from tests.simulation.clock import EPOCH
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "records.json").read_text())


@pytest.mark.parametrize("name", GOLDEN)
def test_msm_066_a_record_of_an_earlier_release_is_read_to_its_last_byte(name: str) -> None:
    golden = GOLDEN[name]
    record = decode_record(bytes.fromhex(golden["record"]), golden["storage_key"].encode())
    attributes = AttributeMap.decode(record.body)
    assert list(attributes) == [attribute for attribute, _ in golden["attributes"]]
    assert attributes.failures == ()
    dict(attributes)
    body, _ = attributes.encode()
    assert body == record.body


def test_msm_067_a_session_keeps_its_id_times_and_lifetime(driver: SimulatedDriver, make_worker: MakeWorker) -> None:
    session = make_worker().create(user="ada")
    session.max_inactive = 4711
    driver.clock.advance(5)
    make_worker().save(session)
    driver.clock.advance(10)
    found = loaded(make_worker(), session.id)
    assert found.id == session.id
    assert found.created_at == EPOCH
    assert found.accessed_at == pytest.approx(EPOCH + 5, abs=1)
    assert found.max_inactive == 4711
    assert found.generation == 1
    assert session.is_new
    assert not found.is_new


def test_msm_069_a_session_whose_last_attribute_was_removed_lives_on_without_any(worker: Worker) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session.clear()
    worker.save(session)
    assert read(worker, session_id) == {}


def test_msm_070_an_attribute_comes_back_with_its_value(worker: Worker) -> None:
    assert read(worker, worker.store(foo="bar")) == {"foo": "bar"}


# -- values of every kind

VALUES: dict[str, Any] = {
    "nothing": None,
    "truth": [True, False],
    "numbers": [0, -1, 2**31, 2**63, -(2**200), 0.5, -0.0, float("inf"), 1 + 2j],
    "exact numbers": [Decimal("1.10"), Fraction(1, 3)],
    "text": ["", "a\u0000b", "\u00fc\u20ac\U0001f600"],
    "bytes": [b"", b"\x00\xff", bytearray(b"x")],
    "times": [date(2024, 2, 29), time(23, 59, 59, 999999), timedelta(days=-1, microseconds=1), datetime(1, 1, 1)],
    "containers": [[], (), {}, set(), frozenset(), [[1], (2,), {3: "three", (4,): {5}}]],
    "identifier": UUID(int=7),
}


@pytest.mark.parametrize("name", VALUES)
def test_msm_163_values_of_the_standard_types_come_back_as_they_were(worker: Worker, name: str) -> None:
    value = VALUES[name]
    found = read(worker, worker.store(value=value))["value"]
    assert repr(found) == repr(value)
    assert type(found) is type(value)


class _Basket:
    """A class of the application's own, which nothing could make without an argument."""

    class Item:
        def __init__(self, name: str) -> None:
            self.name = name

    def __init__(self, item: Item) -> None:
        self.__item = item

    @property
    def name(self) -> str:
        return self.__item.name


register_type(_Basket, "conformance.Basket", lambda basket: basket.name, lambda name: _Basket(_Basket.Item(name)))


def test_msm_166_objects_of_the_applications_classes_come_back_once_their_type_is_registered(worker: Worker) -> None:
    found = read(worker, worker.store(basket=[_Basket(_Basket.Item("apple"))]))["basket"][0]
    assert type(found) is _Basket
    assert found.name == "apple"


@pytest.mark.parametrize(
    "zone", [None, timezone.utc, timezone(timedelta(hours=-3, minutes=-30)), ZoneInfo("Europe/Berlin")]
)
def test_msm_168_a_point_in_time_comes_back_with_its_zone(worker: Worker, zone: Any) -> None:
    moment = datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zone)
    found = read(worker, worker.store(moment=moment))["moment"]
    assert found == moment
    assert found.fold == 1
    assert found.utcoffset() == moment.utcoffset()
    assert repr(found.tzinfo) == repr(zone)


def test_msm_169_json_stores_what_json_can(make_worker: MakeWorker) -> None:
    worker = make_worker(serializer="json")
    attributes = {"beans": [{"name": "ada", "tags": ["a", "b"], "age": 36, "score": 0.5}], "none": None, "yes": True}
    assert read(worker, worker.store(**attributes)) == attributes


# -- what cannot be stored or read


@dataclass
class _Serializer:
    """An application's own, which may lose the ability to read. reads: what it makes of the stored text."""

    name: str
    reads: Callable[[str], Any] = str

    def dumps(self, value: Any) -> bytes:
        if not isinstance(value, complex):
            raise TypeError("only complex numbers")
        return str(value).encode()

    def loads(self, data: bytes) -> Any:
        return self.reads(data.decode())


def _cannot_read(text: str) -> Any:
    raise ValueError("the class has another field now")


def test_msm_160_a_value_that_cannot_be_read_any_more_leaves_the_others_readable(make_worker: MakeWorker) -> None:
    writer = make_worker(serializer=(_Serializer("mine", complex), "json"))
    session_id = writer.store(number=1j, user="ada")
    assert read(writer, session_id) == {"number": 1j, "user": "ada"}
    reader = make_worker(serializer=(_Serializer("mine", _cannot_read), "json"))
    session = loaded(reader, session_id)
    assert session["user"] == "ada"
    assert session["number"] is None
    session["user"] = "grace"
    assert reader.save(session).status == "stored"
    assert read(writer, session_id) == {"number": 1j, "user": "grace"}, "what could not be read is kept as it is"


def test_msm_182_a_value_that_cannot_be_stored_is_counted_reported_and_named(worker: Worker) -> None:
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    with pytest.raises(SerializationError, match=r"'lamp' of type builtins\.object") as caught:
        worker.store(user="ada", lamp=object())
    assert (caught.value.attribute, caught.value.type_name) == ("lamp", "builtins.object")
    assert worker.ctx.counters.snapshot().unserializable == 1
    assert [event.kind for event in events] == ["unserializable", "application_stopped"]


def test_msm_182_a_value_that_cannot_be_stored_costs_no_other_attribute_and_no_other_session(
    make_worker: MakeWorker,
) -> None:
    worker = make_worker(on_unserializable="blacklist")
    session_id = worker.store(user="ada", lamp=object())
    assert read(make_worker(), session_id) == {"user": "ada", "lamp": None}
    worker = make_worker(on_unserializable="local_session")
    session = worker.create(user="ada", lamp=object())
    assert worker.save(session).status == "local"
    assert read(make_worker(), worker.store(user="grace")) == {"user": "grace"}


@pytest.mark.parametrize("value_size", [32_767, 32_768, 70_000, 900_000])
@pytest.mark.parametrize("name_size", [5, 32_768, 65_535])
def test_msm_185_long_names_and_values_come_back(worker: Worker, name_size: int, value_size: int) -> None:
    name, value = "n" * name_size, {"body": b"\x80" * value_size}
    session_id = worker.store(**{name: value, "after": 1})
    assert read(worker, session_id) == {name: value, "after": 1}


def test_msm_187_a_value_that_cannot_be_stored_is_never_left_out_silently(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker = make_worker()
    session_id = worker.store(user="ada")
    stored = driver.nodes[home_of(session_id)].server.peek(key_of(session_id))
    session = loaded(worker, session_id)
    session["lamp"] = object()
    with pytest.raises(SerializationError):
        worker.save(session)
    assert driver.nodes[home_of(session_id)].server.peek(key_of(session_id)) == stored
    assert read(make_worker(), session_id) == {"user": "ada"}


def test_msm_187_by_default_the_application_stops_so_that_it_is_noticed() -> None:
    with SessionManager() as manager:
        with pytest.raises(SerializationError), manager.request(None, "POST") as session:
            session["lamp"] = object()
        with pytest.raises(ApplicationStopped):
            manager.request(None)
