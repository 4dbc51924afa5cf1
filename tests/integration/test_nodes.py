"""Nodes that die, come back and hang, and others that are used instead while requests are served."""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

from msm_fast import (
    ConfigurationError,
    DistributionState,
    Event,
    Reconnect,
    Session,
    SessionManager,
    SessionUnavailable,
)
from msm_fast._core import wire
from msm_fast.engine.effects import Batch, Budget, NodeFailure, Outcome, Replies
from tests.integration.conftest import Nodes
from tests.integration.test_manager import MARGIN_S, home_of, loaded, store, wait_until
from tests.timeouts import HURRIED, UNHURRIED

pytestmark = pytest.mark.memcached

MakeManager = Callable[..., SessionManager]


def test_a_killed_node_loses_no_session_and_fails_no_request(nodes: Nodes, make_manager: MakeManager) -> None:
    writer, reader = make_manager(), make_manager()
    ids = [store(writer, n=n) for n in range(100)]
    for session_id in ids:
        loaded(reader, session_id)  # both have open connections to the node that dies
    nodes["n1"].kill()
    for n, session_id in enumerate(ids):
        with reader.request(session_id, "POST") as session:
            assert session["n"] == n
            session["seen"] = True
        assert session.id_changed == (home_of(session_id) == "n1")
        assert home_of(session.id) != "n1"
        assert dict(loaded(writer, session.id)) == {"n": n, "seen": True}
    assert reader.distribution.state is DistributionState.DEGRADED
    assert [status.is_up for status in reader.nodes()] == [False, True, True]


def test_a_node_that_comes_back_empty_is_used_again(nodes: Nodes, make_manager: MakeManager) -> None:
    events: list[Event] = []
    manager = make_manager(reconnect=Reconnect(first=0.1, cap=0.2))
    manager.subscribe(events.append)
    ids = [store(manager, n=n) for n in range(30)]
    nodes["n2"].kill()
    ids = [loaded(manager, i).id if manager.save(loaded(manager, i)) else i for i in ids]
    assert manager.distribution.state is DistributionState.DEGRADED
    nodes["n2"].start()
    wait_until(lambda: manager.distribution.state is DistributionState.DISTRIBUTED)
    for n, session_id in enumerate(ids):
        assert loaded(manager, session_id)["n"] == n
    assert "n2" in {home_of(store(manager, n=n)) for n in range(50)}
    kinds = [event.kind for event in events]
    assert kinds.count("node_down") == kinds.count("node_up") == 1


def test_a_process_that_is_out_of_file_descriptors_takes_no_node_for_down(
    make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def have_none_left(*kind: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    session_id, events = store(make_manager(), user="ada"), list[Event]()
    manager = make_manager(on_cluster_lost="error")
    manager.subscribe(events.append)
    with monkeypatch.context() as patched:
        patched.setattr(socket, "socket", have_none_left)
        for _ in range(5):
            with pytest.raises(SessionUnavailable):
                manager.load(session_id)
    assert all(node.is_up for node in manager.nodes())
    assert "this process has no file descriptors left" in {node.last_failure[:41] for node in manager.nodes()}
    assert dict(loaded(manager, session_id)) == {"user": "ada"}, "it is served again at once"
    assert events == []


def test_a_hanging_node_costs_one_timeout_at_a_time_and_then_nothing(nodes: Nodes, make_manager: MakeManager) -> None:
    manager = make_manager(reconnect=Reconnect(first=60), timeouts=HURRIED)
    ids = [store(manager, n=n) for n in range(30)]
    ids = [i for i in ids if home_of(i) == "n3"]
    assert len(ids) >= 4
    nodes["n3"].pause()
    try:
        for session_id in ids:
            started = time.monotonic()
            with manager.request(session_id, "POST") as session:
                session["again"] = True
            assert time.monotonic() - started < manager.settings.timeouts.request + MARGIN_S
        assert not manager.nodes()[2].is_up
        started = time.monotonic()
        loaded(manager, ids[0])
        assert time.monotonic() - started < 0.05 + MARGIN_S
    finally:
        nodes["n3"].resume()


def test_a_save_that_hangs_on_its_home_is_stored_elsewhere_in_time(nodes: Nodes, make_manager: MakeManager) -> None:
    manager = make_manager(timeouts=HURRIED)
    session_id = store(manager, step=1)
    scope = manager.request(session_id, "POST")
    scope.session["step"] = 2
    nodes[home_of(session_id)].pause()
    try:
        started = time.monotonic()
        result = scope.save()
        assert time.monotonic() - started < manager.settings.timeouts.request + MARGIN_S
        assert result.status == "stored"
        assert result.node != home_of(session_id)
    finally:
        nodes[home_of(session_id)].resume()
    assert loaded(manager, scope.session.id)["step"] == 2


def test_with_every_node_down_it_is_said_at_once_and_the_sessions_come_back(
    nodes: Nodes, make_manager: MakeManager
) -> None:
    manager = make_manager(reconnect=Reconnect(first=0.1, cap=0.2), on_cluster_lost="error", timeouts=HURRIED)
    session_id = store(manager, n=1)
    for server in nodes.values():
        server.pause()
    try:
        started = time.monotonic()
        for _ in range(10):
            with pytest.raises(SessionUnavailable):
                manager.load(session_id)
        assert time.monotonic() - started < 10 * (HURRIED.request + MARGIN_S)
        wait_until(lambda: manager.distribution.state is DistributionState.LOCAL or not _provoke(manager, session_id))
        started = time.monotonic()
        with pytest.raises(SessionUnavailable):
            manager.load(session_id)
        assert time.monotonic() - started < MARGIN_S
    finally:
        for server in nodes.values():
            server.resume()
    wait_until(lambda: manager.distribution.state is DistributionState.DISTRIBUTED)
    assert loaded(manager, session_id)["n"] == 1


def _provoke(manager: SessionManager, session_id: str) -> bool:
    """Ask once more, so that nodes which time out are counted; return that it is not yet done."""
    with pytest.raises(SessionUnavailable):
        manager.load(session_id)
    return True


# -- other nodes while it runs


def test_nodes_are_added_drained_and_removed_while_sessions_are_served(nodes: Nodes) -> None:
    two = f"n1:{nodes['n1'].address},n2:{nodes['n2'].address}"
    with SessionManager(two, timeouts=UNHURRIED) as manager:
        ids = [store(manager, n=n) for n in range(12)]
        manager.set_nodes(f"{two},n3:{nodes['n3'].address}")
        manager.drain("n1")
        assert [status.is_draining for status in manager.nodes()] == [True, False, False]
        for n, session_id in enumerate(ids):
            with manager.request(session_id) as session:
                assert session["n"] == n
            ids[n] = session.id
        assert "n1" not in {home_of(session_id) for session_id in ids}
        manager.set_nodes(f"n2:{nodes['n2'].address},n3:{nodes['n3'].address}")
        nodes["n1"].kill()
        for n, session_id in enumerate(ids):
            assert loaded(manager, session_id)["n"] == n
        assert manager.distribution.state is DistributionState.DISTRIBUTED


def test_a_listener_may_change_the_nodes_also_when_it_is_told_that_they_were_changed(nodes: Nodes) -> None:
    by_name = {name: f"{name}:{nodes[name].address}" for name in ("n1", "n2", "n3")}
    manager = SessionManager([by_name["n1"], by_name["n2"]])
    told: list[Event] = []

    def look(event: Event) -> None:
        told.append(event)
        if len(told) == 1:
            manager.set_nodes(list(by_name.values()))
            manager.drain("n1")

    manager.subscribe(look)
    changing = threading.Thread(target=manager.set_nodes, args=([by_name["n2"]],), daemon=True)
    changing.start()
    changing.join(10)
    assert not changing.is_alive()
    assert [node.node_id for node in manager.nodes() if not node.is_draining] == ["n2", "n3"]
    session = manager.create()
    session["n"] = 1
    saved = manager.save(session)
    assert {saved.node, *saved.backups} == {"n2", "n3"}
    manager.close()


def test_while_nodes_are_changed_the_former_are_reached_as_well_as_the_next(nodes: Nodes) -> None:
    outcomes: list[Outcome] = []

    def ask_all(event: Event) -> None:
        batches = [Batch(name, [wire.noop()]) for name in nodes]
        outcomes.extend(manager._driver.exchange(batches, Budget(UNHURRIED.request)))

    with SessionManager(f"n1:{nodes['n1'].address},n2:{nodes['n2'].address}", timeouts=UNHURRIED) as manager:
        manager.subscribe(ask_all)
        manager.set_nodes(f"n2:{nodes['n2'].address},n3:{nodes['n3'].address}")
        assert [type(outcome) for outcome in outcomes] == [Replies, Replies, Replies]
        ask_all(Event("nodes_changed", "afterwards"))
        gone, *_ = outcomes[3:]
        assert isinstance(gone, NodeFailure)
        assert gone.kind == "gone"


@pytest.mark.parametrize("node", ["n9", "n1"])
def test_a_drain_that_makes_no_sense_is_refused(nodes: Nodes, node: str) -> None:
    with SessionManager(f"n1:{nodes['n1'].address}", timeouts=UNHURRIED) as manager:
        with pytest.raises(ConfigurationError):
            manager.drain(node)
        with pytest.raises(ConfigurationError):
            manager.set_nodes("n1")
        assert store(manager, n=1)


def test_a_manager_without_nodes_can_be_given_some(nodes: Nodes) -> None:
    with SessionManager(timeouts=UNHURRIED) as manager:
        assert manager.save(_with_something(manager)).status == "local"
        manager.set_nodes(f"n1:{nodes['n1'].address}")
        wait_until(lambda: manager.distribution.state is DistributionState.DISTRIBUTED)
        assert manager.save(_with_something(manager)).status == "stored"


def _with_something(manager: SessionManager) -> Session:
    session = manager.create()
    session["n"] = 1
    return session
