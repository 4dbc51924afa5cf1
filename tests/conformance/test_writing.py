"""What a request costs: which commands are sent, and what is encoded."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import Session, SessionId, SessionUnavailable
from tests.conformance.traffic import Traffic
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import home_of, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


def request(worker: Worker, session_id: str, act: Callable[[Session], object]) -> str:
    """Load the session, do something with it, save it and return its id."""
    session = loaded(worker, session_id)
    act(session)
    worker.save(session)
    return session.id


def write(name: str, value: Any) -> Callable[[Session], None]:
    return lambda session: session.update({name: value})


def look_at_nothing(session: Session) -> None:
    """A request whose page asks for the session and for none of its attributes."""


def test_msm_083_a_node_that_refuses_is_tried_once_and_the_failure_is_told() -> None:
    driver = SimulatedDriver([""], VirtualClock())
    worker = Worker(driver, make_settings(1).build("127.0.0.1:11211", on_cluster_lost="error"))
    session = worker.create(user="ada")
    driver.nodes[""].fault = "refused"
    with pytest.raises(SessionUnavailable):
        worker.save(session)
    assert driver.nodes[""].batches == 1


def test_msm_083_with_local_fallback_the_session_is_kept_on_this_host() -> None:
    driver = SimulatedDriver([""], VirtualClock())
    worker = Worker(driver, make_settings(1).build("127.0.0.1:11211"))
    session = worker.create(user="ada")
    driver.nodes[""].fault = "refused"
    assert worker.save(session).status == "local"
    assert driver.nodes[""].batches == 1
    assert read(worker, session.id) == {"user": "ada"}


def test_msm_084_a_session_is_written_once_for_each_request_that_changes_it(worker: Worker, traffic: Traffic) -> None:
    session_id = worker.store(user="ada")
    home = home_of(session_id)
    assert traffic.count("ms", home) == 1
    request(worker, session_id, write("user", "grace"))
    assert traffic.count("ms", home) == 2
    request(worker, session_id, look_at_nothing)
    assert traffic.count("ms", home) == 2


class CountingSerializer:
    """Encodes lists of text, and counts what it encodes."""

    name = "counting"

    def __init__(self) -> None:
        self.dumped: list[Any] = []

    def dumps(self, value: Any) -> bytes:
        self.dumped.append(list(value))
        return ",".join(value).encode()

    def loads(self, data: bytes) -> Any:
        return data.decode().split(",")


def test_msm_085_what_a_request_does_not_touch_is_not_encoded_again(make_worker: MakeWorker) -> None:
    serializer = CountingSerializer()
    worker = make_worker(serializer=serializer)
    session_id = worker.store(cart=["apple"], seen=["home"])
    serializer.dumped.clear()
    request(worker, session_id, look_at_nothing)
    assert serializer.dumped == []
    request(worker, session_id, write("seen", ["home", "cart"]))
    assert serializer.dumped == [["home", "cart"]]


def test_msm_086_a_value_that_was_read_is_compared_and_a_change_inside_it_is_stored(
    make_worker: MakeWorker, traffic: Traffic
) -> None:
    serializer = CountingSerializer()
    worker = make_worker(serializer=serializer)
    session_id = worker.store(cart=["apple"], seen=["home"])
    traffic.clear()
    serializer.dumped.clear()
    request(worker, session_id, lambda session: session["cart"])
    assert [value for value in serializer.dumped if value != ["apple"]] == []
    assert serializer.dumped != []
    assert traffic.count("ms") == 0
    request(worker, session_id, lambda session: session["cart"].append("pear"))
    assert read(worker, session_id)["cart"] == ["apple", "pear"]


def test_msm_087_a_new_id_at_login_is_stored_and_the_old_one_ends_without_the_application_saying_so(
    driver: SimulatedDriver, make_worker: MakeWorker, mode: dict[str, Any], traffic: Traffic
) -> None:
    worker = make_worker(**mode)
    old = worker.store(user="ada")
    session = loaded(worker, old)
    traffic.clear()
    session.rotate_id()
    assert worker.save(session).status == "stored"
    assert key_of(session.id) != key_of(old)
    assert read(worker, session.id) == {"user": "ada"}
    assert worker.load(old) is None
    for key in (session.id, old):
        assert driver.nodes[home_of(key)].server.peek(key_of(key)) is not None
    assert traffic.count("ms") <= 2 + 3, "the new copies, and a tombstone wherever an old one may be looked for"


def test_msm_094_an_id_that_is_not_found_costs_nothing_more_when_the_request_ends(
    worker: Worker, traffic: Traffic
) -> None:
    session_id = str(SessionId.generate("n1"))
    assert worker.load(session_id) is None
    traffic.clear()
    session = worker.create()
    assert worker.save(session).status == "unchanged"
    assert traffic.round_trips == 0


def test_msm_119_a_request_fetches_its_session_once_however_often_it_looks(
    make_worker: MakeWorker, traffic: Traffic
) -> None:
    session_id = make_worker().store(user="ada", page=1)
    traffic.clear()
    session = loaded(make_worker(), session_id)
    for _ in range(3):
        assert dict(session) == {"user": "ada", "page": 1}
        assert session["user"] == "ada"
    assert traffic.round_trips == 1
    assert traffic.count("mg", home_of(session_id)) == 1


def test_msm_143_without_a_second_primary_a_session_is_one_write() -> None:
    driver = SimulatedDriver(["n1", "n2"], VirtualClock())
    traffic = Traffic(driver)
    Worker(driver, make_settings(2, failover_nodes="n2")).store(user="ada")
    assert traffic.count("ms", "n1") == 1
    assert traffic.count(node="n2") == 0


def test_msm_174_an_id_that_is_not_found_is_never_taken_over(worker: Worker, traffic: Traffic) -> None:
    unknown = str(SessionId.generate("n1"))
    assert worker.load(unknown) is None
    assert traffic.round_trips == 2, "at its node, then where a backup may be"
    session_id = worker.store(user="ada")
    assert key_of(session_id) != key_of(unknown)
    assert read(worker, session_id) == {"user": "ada"}
