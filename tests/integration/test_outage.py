"""The whole cluster away, with real servers: what workers serve meanwhile, and what is there when it is back."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from msm_fast import DistributionState, Reconnect, SessionManager
from tests.integration.conftest import Nodes
from tests.integration.test_manager import loaded, wait_until
from tests.timeouts import HURRIED

pytestmark = pytest.mark.memcached

MakeManager = Callable[..., SessionManager]
QUICK = Reconnect(first=0.1, cap=0.2)
QUICK_REPLAY = Reconnect(first=0.1, cap=0.2, on_reconnect="replay")


def store(manager: SessionManager, **attributes: object) -> str:
    """Store a session, here or there."""
    session = manager.create()
    session.update(attributes)
    assert manager.save(session).status in ("stored", "local")
    return session.id


def kill_all(nodes: Nodes, *managers: SessionManager) -> None:
    for server in nodes.values():
        server.kill()
    for manager in managers:
        while manager.distribution.state is not DistributionState.LOCAL:
            store(manager, noticed=True)


def start_all(nodes: Nodes, *managers: SessionManager) -> None:
    for server in nodes.values():
        server.start()
    wait_until(lambda: all(manager.distribution.state is DistributionState.DISTRIBUTED for manager in managers))


def write(manager: SessionManager, session_id: str, **changes: object) -> str:
    session = loaded(manager, session_id)
    session.update(changes)
    return manager.save(session).status


def test_the_cluster_is_used_again_though_the_sites_log_wants_a_request_where_there_is_none(
    nodes: Nodes, make_manager: MakeManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    class OfRequests(logging.Handler):
        """As one with a filter that adds the user of the request."""

        def handle(self, record: logging.LogRecord) -> bool:
            if threading.current_thread() is not threading.main_thread():
                raise RuntimeError("Working outside of request context.")
            return True

    monkeypatch.setattr(logging.getLogger("msm_fast"), "handlers", [OfRequests()])
    manager = make_manager(reconnect=QUICK)
    kill_all(nodes, manager)
    start_all(nodes, manager)


def test_workers_of_a_host_share_what_they_keep_in_a_file(
    nodes: Nodes, make_manager: MakeManager, tmp_path: Path
) -> None:
    local_store = f"sqlite:///{tmp_path / 'sessions.db'}"
    one, two = (make_manager(reconnect=QUICK, local_store=local_store) for _ in range(2))
    seen_by_both = store(one, n=0)
    loaded(two, seen_by_both)
    kill_all(nodes, one, two)
    assert write(one, seen_by_both, n=1) == "local"
    login = store(one, user="ada")
    assert dict(loaded(two, login)) == {"user": "ada"}
    assert dict(loaded(two, seen_by_both)) == {"n": 1}
    assert write(two, login, page=2) == "local"
    assert dict(loaded(one, login)) == {"user": "ada", "page": 2}


def test_a_logout_in_an_outage_holds_even_if_its_worker_dies_before_the_end(
    nodes: Nodes, make_manager: MakeManager, tmp_path: Path
) -> None:
    local_store = f"sqlite:///{tmp_path / 'sessions.db'}"
    one, two = (make_manager(reconnect=QUICK, local_store=local_store, timeouts=HURRIED) for _ in range(2))
    session_id = store(one, user="ada")
    loaded(two, session_id)
    for server in nodes.values():
        server.pause()
    for manager in (one, two):
        while manager.distribution.state is not DistributionState.LOCAL:
            write(manager, session_id, noticed=True)
    logout = loaded(one, session_id)
    assert one.invalidate(logout).status == "invalidated"
    one.close()
    assert two.load(session_id) is None
    for server in nodes.values():
        server.resume()
    wait_until(lambda: two.distribution.state is DistributionState.DISTRIBUTED)
    assert two.load(session_id) is None
    assert make_manager().load(session_id) is None


def test_after_a_power_cut_a_replay_brings_the_sessions_of_this_host_back(
    nodes: Nodes, make_manager: MakeManager
) -> None:
    manager = make_manager(reconnect=QUICK_REPLAY)
    kill_all(nodes, manager)
    ids = [store(manager, n=n) for n in range(20)]
    start_all(nodes, manager)
    wait_until(lambda: manager.statistics().replayed >= 20)  # those of a node that came later are stored later
    other = make_manager()
    for n, session_id in enumerate(ids):
        session = loaded(other, session_id)
        assert dict(session) == {"n": n}
        assert session.id_changed


def test_an_operator_stops_and_starts_distribution_under_load(nodes: Nodes, make_manager: MakeManager) -> None:
    manager = make_manager(reconnect=QUICK)
    session_id = store(manager, n=0)
    manager.distribution.stop("maintenance")
    assert manager.distribution.state is DistributionState.STOPPED
    assert write(manager, session_id, n=1) == "local"
    for server in nodes.values():
        server.kill()
    assert write(manager, session_id, n=2) == "local"
    for server in nodes.values():
        server.start()
    manager.distribution.start()
    wait_until(lambda: manager.distribution.state is DistributionState.DISTRIBUTED)
    assert write(manager, store(manager, n=5), n=6) == "stored"


def test_a_manager_that_starts_without_any_node_takes_them_up_when_they_come(
    nodes: Nodes, make_manager: MakeManager
) -> None:
    for server in nodes.values():
        server.kill()
    manager = make_manager(reconnect=QUICK)
    assert write(manager, store(manager, n=0), n=1) == "local"
    start_all(nodes, manager)
    assert write(manager, store(manager, n=0), n=1) == "stored"
