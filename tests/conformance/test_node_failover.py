"""Real nodes are killed and started again under a worker of the site."""

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from pymemcache.client.base import Client as MemcachedClient

from msm_fast import DistributionState, Reconnect, SessionId, SessionManager
from tests.conformance.client import Client, WebWorker
from tests.integration.conftest import Nodes
from tests.integration.test_manager import home_of, wait_until
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached

MakeWebWorker = Callable[..., WebWorker]

QUICK = Reconnect(first=0.05, cap=0.1)


def plain_of(session_id: str) -> str:
    return SessionId(session_id).plain


def has_item(nodes: Nodes, name: str, session_id: str) -> bool:
    """Whether a node has an item of the session, asked for in memcached's classic protocol."""
    client = MemcachedClient(("127.0.0.1", nodes[name].port))
    try:
        return client.get(plain_of(session_id)) is not None
    finally:
        client.close()


def addresses(nodes: Nodes, *names: str) -> str:
    return ",".join(f"{name}:{nodes[name].address}" for name in names)


def let_others_notice(web_worker: WebWorker, *gone: str) -> None:
    """Let other sessions be written until the worker knows which nodes are gone: a request of a live one asks none."""
    while any(node.is_up for node in web_worker.manager.nodes() if node.node_id in gone):
        Client().post(web_worker, user="somebody else")
        time.sleep(0.01)


def test_msm_122_when_its_node_is_gone_a_session_moves_once_and_stays(
    nodes: Nodes, make_web_worker: MakeWebWorker, mode: dict[str, Any]
) -> None:
    client, web_worker = Client(), make_web_worker(**mode)
    before = client.post(web_worker, user="ada").id
    web_worker.settle()
    nodes[home_of(before)].kill()
    if mode["sticky"]:
        let_others_notice(web_worker, home_of(before))
    moved = client.get(web_worker)
    assert moved.attributes == {"user": "ada"}
    assert plain_of(moved.id) == plain_of(before)
    assert home_of(moved.id) != home_of(before)
    assert client.id == moved.id
    web_worker.settle()
    survivors = nodes.keys() - {home_of(before)}
    assert all(has_item(nodes, name, moved.id) for name in survivors), "it has two copies again"
    after = client.get(web_worker)
    assert after.id == moved.id
    assert after.header("set-cookie") is None
    assert after.attributes == {"user": "ada"}


@pytest.mark.parametrize("replicas", [1, 2])
def test_msm_123_with_two_of_three_nodes_gone_the_session_is_on_the_third(
    nodes: Nodes, make_web_worker: MakeWebWorker, mode: dict[str, Any], replicas: int
) -> None:
    client, web_worker = Client(), make_web_worker(replicas=replicas, **mode)
    before = client.post(web_worker, user="ada").id
    web_worker.settle()
    home = home_of(before)
    backups = [name for name in nodes if name != home and has_item(nodes, name, before)]
    assert len(backups) == replicas
    backup = backups[-1]
    for name in nodes:
        if name != backup:
            nodes[name].kill()
    if mode["sticky"]:
        let_others_notice(web_worker, *(nodes.keys() - {backup}))
    moved = client.get(web_worker)
    assert moved.attributes == {"user": "ada"}
    assert moved.id == before.replace(f"-{home}", f"-{backup}")
    assert client.get(web_worker).id == moved.id


def test_msm_124_a_backup_that_was_lost_is_made_again_by_a_request_that_changes_nothing(nodes: Nodes) -> None:
    text = addresses(nodes, "n1", "n2")
    client = Client()
    settings: dict[str, Any] = {"reconnect": QUICK, "timeouts": UNHURRIED}
    with SessionManager(text, **settings) as first, SessionManager(text, **settings) as second:
        one, two = WebWorker(first), WebWorker(second)
        before = client.post(one, user="ada").id
        home = home_of(before)
        backup = "n2" if home == "n1" else "n1"
        nodes[backup].kill()
        assert client.post(one, page="2").attributes == {"user": "ada", "page": "2"}
        nodes[backup].start()
        wait_until(lambda: first.distribution.state is DistributionState.DISTRIBUTED)
        assert not has_item(nodes, backup, before)
        assert client.get(two).id == before
        assert has_item(nodes, backup, before)
        nodes[home].kill()
        moved = client.get(two)
        assert moved.id == before.replace(f"-{home}", f"-{backup}")
        assert moved.attributes == {"user": "ada", "page": "2"}


def test_msm_125_with_every_node_gone_a_session_stays_under_its_id(
    nodes: Nodes, make_web_worker: MakeWebWorker, mode: dict[str, Any]
) -> None:
    web_worker, client = make_web_worker(**mode), Client()
    before = client.post(web_worker, user="ada").id
    web_worker.settle()
    for server in nodes.values():
        server.kill()
    if mode["sticky"]:
        let_others_notice(web_worker, *nodes)
    for page in ("1", "2"):
        response = client.post(web_worker, page=page)
        assert response.attributes == {"user": "ada", "page": page}
        assert response.id == client.id == before
        assert response.all("set-cookie") == []


def test_msm_127_with_its_only_primary_gone_the_worker_uses_its_failover_node(
    nodes: Nodes, mode: dict[str, Any]
) -> None:
    text = addresses(nodes, "n1", "n2")
    with SessionManager(text, failover_nodes="n1", timeouts=UNHURRIED, **mode) as manager:
        web_worker, client = WebWorker(manager), Client()
        nodes["n2"].kill()
        if mode["sticky"]:
            let_others_notice(web_worker, "n2")
        first = client.post(web_worker, user="ada")
        given = client.id
        assert given is not None
        assert home_of(given) == "n1"
        assert len(first.all("set-cookie")) == 1
        second = client.get(web_worker)
        assert second.id == client.id == given
        assert second.all("set-cookie") == []
        assert second.attributes == {"user": "ada"}


def test_msm_126_with_every_node_gone_a_new_session_gets_one_cookie_without_a_node(
    nodes: Nodes, make_web_worker: MakeWebWorker, mode: dict[str, Any]
) -> None:
    web_worker, client = make_web_worker(**mode), Client()
    for server in nodes.values():
        server.kill()
    Client().post(web_worker, user="the first to notice")
    if mode["sticky"]:
        let_others_notice(web_worker, *nodes)
    first = client.post(web_worker, user="ada")
    assert SessionId(first.id).node is None
    assert len(first.all("set-cookie")) == 1
    started = time.monotonic()
    second = client.get(web_worker)
    assert time.monotonic() - started < 0.25
    assert second.id == first.id
    assert second.all("set-cookie") == []
    assert second.attributes == {"user": "ada"}


# -- other nodes at run time


def test_msm_128_a_node_that_was_added_takes_over_a_session(nodes: Nodes, mode: dict[str, Any]) -> None:
    with SessionManager(addresses(nodes, "n1", "n2"), failover_nodes="n2", timeouts=UNHURRIED, **mode) as manager:
        web_worker, client = WebWorker(manager), Client()
        before = client.post(web_worker, user="ada").id
        web_worker.settle()
        assert home_of(before) == "n1"
        manager.set_nodes(addresses(nodes, "n1", "n2", "n3"), failover_nodes="n2")
        assert client.post(web_worker, page="2").id == before
        web_worker.settle()
        nodes["n1"].kill()
        if mode["sticky"]:
            let_others_notice(web_worker, "n1")
        moved = client.get(web_worker)
        assert moved.id == before.replace("-n1", "-n3")
        assert moved.attributes == {"user": "ada", "page": "2"}


def test_msm_129_failover_nodes_can_be_exchanged(nodes: Nodes) -> None:
    text = addresses(nodes, "n1", "n2", "n3")
    with SessionManager(text, failover_nodes="n2 n3", timeouts=UNHURRIED) as manager:
        web_worker = WebWorker(manager)
        before = [Client().post(web_worker, n=str(n)).id for n in range(10)]
        manager.set_nodes(text, failover_nodes="n1 n2")
        after = [Client().post(web_worker, n=str(n)).id for n in range(10)]
        assert {home_of(session_id) for session_id in before} == {"n1"}
        assert {home_of(session_id) for session_id in after} == {"n3"}
        assert Client(before[3]).get(web_worker).attributes == {"n": "3"}


def test_msm_184_changing_the_configuration_leaves_no_thread_and_no_connection(nodes: Nodes) -> None:
    few, many = addresses(nodes, "n1"), addresses(nodes, "n1", "n2", "n3")
    with SessionManager(few, reconnect=QUICK, timeouts=UNHURRIED) as manager:
        web_worker = WebWorker(manager)
        Client().post(web_worker, user="ada")
        threads, files = set(threading.enumerate()), len(os.listdir("/dev/fd"))
        for _ in range(10):
            manager.set_nodes(many)
            for n in range(5):
                Client().post(web_worker, n=str(n))
            manager.distribution.stop("for a moment")
            manager.distribution.start()
            wait_until(lambda: manager.distribution.state is DistributionState.DISTRIBUTED)
            manager.set_nodes(few)
        Client().post(web_worker, user="ada")
        wait_until(lambda: set(threading.enumerate()) == threads)
        assert len(os.listdir("/dev/fd")) == files
