"""Storing what a request changed on nodes that are out of memory."""

import os
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import Event, SessionUnavailable
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import holders, home_of, key_of
from tests.simulation.test_locking import at_exchange
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]


def test_out_of_memory_on_the_home_moves_the_session(driver: SimulatedDriver, worker: Worker, monkeypatch: Any) -> None:
    session_id = worker.store(step=1)
    session = loaded(worker, session_id)
    session["step"] = 2
    server = driver.nodes[home_of(session_id)].server

    def refuse(data: bytes) -> bytes:
        server.evict(key_of(session_id))
        return b"SERVER_ERROR out of memory storing object\r\n"

    monkeypatch.setattr(server, "handle", refuse)
    result = worker.save(session)
    assert result.status == "stored"
    assert result.node != home_of(session_id)
    monkeypatch.undo()
    assert read(worker, session.id) == {"step": 2}


def test_where_every_node_is_out_of_memory_the_error_says_so_and_not_that_none_can_be_reached(
    driver: SimulatedDriver, worker: Worker, monkeypatch: Any
) -> None:
    for node in driver.nodes.values():
        monkeypatch.setattr(node.server, "handle", lambda data: b"SERVER_ERROR out of memory storing object\r\n")
    with pytest.raises(SessionUnavailable) as caught:
        worker.save(worker.create(user="ada"))
    assert set(caught.value.nodes) == set(driver.nodes)
    assert "out of memory" in str(caught.value)
    assert "reached" not in str(caught.value)


def test_that_a_node_cannot_store_sessions_is_told_once_a_minute(
    driver: SimulatedDriver, worker: Worker, monkeypatch: Any
) -> None:
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    monkeypatch.setattr(driver.nodes["n1"].server, "handle", lambda data: b"SERVER_ERROR out of memory\r\n")
    for _ in range(20):
        worker.store(user="ada")
    (told,) = [event for event in events if event.kind == "refused"]
    assert told.node == "n1"
    assert "(out of memory)" in told.detail
    driver.clock.advance(61)
    for _ in range(20):
        worker.store(user="ada")
    assert len([event for event in events if event.kind == "refused"]) == 2


def test_the_error_tells_a_node_that_is_out_of_memory_from_one_that_cannot_be_reached(
    driver: SimulatedDriver, worker: Worker, monkeypatch: Any
) -> None:
    full, *others = driver.nodes
    server = driver.nodes[full].server
    monkeypatch.setattr(server, "handle", lambda data: b"SERVER_ERROR out of memory storing object\r\n")
    for node in others:
        driver.nodes[node].fault = "refused"
    with pytest.raises(SessionUnavailable) as caught:
        worker.save(worker.create(user="ada"))
    told_full, told_away = str(caught.value).split("out of memory")
    assert f"{full} (" in told_full
    assert all(f"{node} (" in told_away for node in others)
    assert "cannot be reached" in told_away


@pytest.fixture
def no_room_for_more(driver: SimulatedDriver, monkeypatch: Any) -> None:
    """Let every server have room for what it has, but for nothing larger; it drops what it cannot replace."""
    for node in driver.nodes.values():

        def handle(
            data: bytes, server: Any = node.server, usual: Callable[[bytes], bytes] = node.server.handle
        ) -> bytes:
            verb, key, *rest = data.split(b"\r\n")[0].split()
            if verb == b"ms" and int(rest[0]) > 2000:
                server.evict(key)
                return b"SERVER_ERROR out of memory storing object\r\n"
            return usual(data)

        monkeypatch.setattr(node.server, "handle", handle)


@pytest.mark.usefixtures("no_room_for_more")
def test_what_no_node_has_room_for_does_not_take_along_what_they_had(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    worker, other = make_worker(), make_worker()
    session_id = worker.store(step=1)
    session = loaded(worker, session_id)
    session["large"] = os.urandom(4000)
    with pytest.raises(SessionUnavailable, match="out of memory"):
        worker.save(session)
    assert read(other, session_id) == {"step": 1}
    assert len(holders(driver, session_id)) == 2
    session = loaded(other, session_id)
    session["step"] = 2
    assert other.save(session).status == "stored"
    assert read(worker, session_id) == {"step": 2}


def test_nor_is_anything_put_back_over_what_has_come_there_meanwhile(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    """A full server deletes what it has under a key, also if it is asked to add something."""
    worker, other = make_worker(), make_worker()
    session_id = worker.store(step=1)
    session, of_other = loaded(worker, session_id), loaded(other, session_id)
    session["large"] = os.urandom(4000)
    servers = [node.server for node in driver.nodes.values()]
    left_by_logout: list[set[str]] = []

    def log_out_and_fill() -> None:
        of_other.invalidate()
        other.save(of_other)
        left_by_logout.append(holders(driver, session_id))
        for server in servers:
            server.room = 0

    for server in servers:
        server.room = 1000
    at_exchange(driver, 3, log_out_and_fill)  # the first two have shown that no node has room
    with pytest.raises(SessionUnavailable, match="out of memory"):
        worker.save(session)
    assert [holders(driver, session_id)] == left_by_logout


@pytest.mark.usefixtures("no_room_for_more")
def test_and_what_is_kept_on_this_host_instead_is_still_served(make_worker: MakeWorker) -> None:
    worker = make_worker(on_cluster_lost="local")
    session_id = worker.store(step=1)
    session = loaded(worker, session_id)
    large = session["large"] = os.urandom(4000)
    assert worker.save(session).status == "local"
    assert read(worker, session_id) == {"step": 1, "large": large}
    assert read(make_worker(), session_id) == {"step": 1}
