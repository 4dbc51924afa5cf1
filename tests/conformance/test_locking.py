"""Locks on sessions, and requests that are to be left alone, on real nodes."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from msm_fast import Session, SessionManager
from msm_fast.engine.locking import LOCK_PREFIX
from tests.conformance.client import Client, Form, Response, WebWorker, put, show
from tests.conformance.test_node_failover import has_item, plain_of
from tests.conformance.test_workers import Gate, MakeWebWorker, make_site, overlapping
from tests.integration.conftest import Nodes
from tests.timeouts import UNHURRIED

__all__ = ["make_site"]

pytestmark = pytest.mark.memcached

MODES = ["all", "auto", "uri:.*"]


def locks(nodes: Nodes, session_id: str, prefix: str = "") -> list[str]:
    """Return the nodes that have a lock of the session."""
    key = LOCK_PREFIX + f"{prefix}{plain_of(session_id)}".encode()
    found = []
    for name, server in nodes.items():
        with server.client() as client:
            if client.get(key) is not None:
                found.append(name)
    return found


@contextmanager
def running(web_worker: WebWorker, client: Client, method: str = "POST", path: str = "/slow") -> Iterator[Gate]:
    """Keep a request of the client waiting in the application, its session in hand, until the block ends."""
    gate = Gate()
    web_worker.pages[f"{method} {path}"] = gate
    send = Client(client.id).post if method == "POST" else Client(client.id).get
    thread = threading.Thread(target=lambda: send(web_worker, path))
    thread.start()
    assert gate.entered.wait(10)
    try:
        yield gate
    finally:
        gate.may_go_on.set()
        thread.join(10)


@pytest.mark.parametrize("locking", MODES)
@pytest.mark.parametrize("prefix", ["", "shop_"])
def test_msm_007_033_the_locks_key_has_the_prefix_also_on_a_node_without_a_name(
    nodes: Nodes, make_site: MakeWebWorker, locking: str, prefix: str
) -> None:
    client, web_worker = Client(), make_site(locking=locking, key_prefix=prefix)
    session_id = client.post(web_worker, user="ada").id
    with running(web_worker, client):
        assert len(locks(nodes, session_id, prefix)) == 1
    assert locks(nodes, session_id, prefix) == []


@pytest.mark.parametrize("locking", MODES)
def test_msm_132_a_locked_session_is_made_read_changed_and_read_on_any_cluster(
    make_site: MakeWebWorker, locking: str
) -> None:
    client, web_worker = Client(), make_site(locking=locking)
    session_id = client.post(web_worker, user="ada").id
    assert client.get(web_worker).attributes == {"user": "ada"}
    client.post(web_worker, user="grace")
    response = client.get(web_worker)
    assert response.attributes == {"user": "grace"}
    assert response.id == session_id
    assert web_worker.manager.statistics().lock_waits == 0


@pytest.mark.parametrize("locking", MODES)
def test_msm_093_133_locked_requests_of_one_worker_and_a_later_one_of_another_all_count(
    make_web_worker: MakeWebWorker, locking: str
) -> None:
    client, one, two = Client(), make_web_worker(locking=locking), make_web_worker(locking=locking)
    client.post(one, start="1")
    overlapping(one, client, {"slow": "1"}, lambda: Client(client.id).post(one, quick="1"))
    client.post(two, later="1")
    assert client.get(two).attributes == {"start": "1", "slow": "1", "quick": "1", "later": "1"}
    assert one.manager.statistics().lock_waits == 1
    assert one.manager.statistics().conflicts == 0


@pytest.mark.parametrize("locking", MODES)
def test_msm_135_of_two_workers_that_lock_one_waits_and_sees_what_the_other_wrote(
    make_web_worker: MakeWebWorker, locking: str
) -> None:
    client, one, two = Client(), make_web_worker(locking=locking), make_web_worker(locking=locking)
    client.post(one, start="1")
    seen: list[Response] = []
    overlapping(one, client, {"slow": "1"}, lambda: seen.append(Client(client.id).post(two, quick="1")))
    assert seen[0].attributes == {"start": "1", "slow": "1", "quick": "1"}
    assert client.get(one).attributes == {"start": "1", "slow": "1", "quick": "1"}
    assert one.manager.statistics().conflicts == two.manager.statistics().conflicts == 0


def test_msm_058_136_learned_read_only_requests_run_side_by_side_also_with_a_writing_one(
    make_web_worker: MakeWebWorker,
) -> None:
    client, web_worker = Client(), make_web_worker(locking="auto")
    client.post(web_worker, user="ada")
    together = threading.Barrier(2)

    def show_together(session: Session, form: Form) -> None:
        show(session, form)
        together.wait(10)

    web_worker.pages["GET /together"] = show
    client.get(web_worker, "/together")
    web_worker.pages["GET /together"] = show_together
    with running(web_worker, client):
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(Client(client.id).get(web_worker, "/together").status))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        assert statuses == [200, 200]
    web_worker.pages["GET /together"] = lambda session, form: put(session, {"n": "1"})
    client.get(web_worker, "/together")
    web_worker.pages["GET /together"] = show
    client.get(web_worker, "/together")
    before = web_worker.manager.statistics().locks
    client.get(web_worker, "/together")
    assert web_worker.manager.statistics().locks == before + 1, "it wrote once, so it is locked again"


@pytest.mark.parametrize("pattern", ["/locked.*", "POST /locked.*"])
def test_msm_137_only_requests_that_the_pattern_matches_hold_each_other_up(
    make_web_worker: MakeWebWorker, pattern: str
) -> None:
    impatient = replace(UNHURRIED, lock=0.3)
    client, web_worker = Client(), make_web_worker(locking=f"uri:{pattern}", timeouts=impatient)
    client.post(web_worker, user="ada")
    web_worker.pages["POST /locked/too"] = put
    with running(web_worker, client, path="/locked/slow"):
        assert client.post(web_worker, page="1").status == 200
        with running(web_worker, client, path="/free"):
            assert client.get(web_worker).status == 200
        assert client.post(web_worker, "/locked/too").status == 503
    assert client.post(web_worker, "/locked/too").status == 200


@pytest.mark.parametrize("locking", MODES)
def test_msm_150_invalidating_removes_the_session_and_its_lock(
    nodes: Nodes, make_web_worker: MakeWebWorker, locking: str
) -> None:
    client, web_worker = Client(), make_web_worker(locking=locking)
    session_id = client.post(web_worker, user="ada").id
    client.post(web_worker, "/invalidate")
    assert web_worker.manager.load(session_id) is None
    assert locks(nodes, session_id) == []


def test_msm_079_145_an_ignored_request_stores_nothing_sets_no_cookie_and_costs_nothing_if_it_does_not_look(
    nodes: Nodes, make_web_worker: MakeWebWorker
) -> None:
    client, one, two = Client(), *(make_web_worker(ignore_requests=r".*\.png", locking="all") for _ in range(2))
    for web_worker in (one, two):
        web_worker.pages["POST /write.png"] = put
        web_worker.pages["GET /logo.png"] = web_worker.pages["GET /static"]
    newcomer = Client()
    assert newcomer.post(one, "/write.png", user="eve").header("set-cookie") is None
    session_id = client.post(one, user="ada").id
    before = one.manager.statistics()
    assert client.get(one, "/logo.png").header("set-cookie") is None
    assert one.manager.statistics().round_trips == before.round_trips
    response = client.post(one, "/write.png", user="eve")
    assert response.attributes == {"user": "eve"}
    assert response.header("set-cookie") is None
    assert one.manager.statistics().stored == before.stored
    assert one.manager.statistics().locks == before.locks
    client.post(one, page="2")
    assert client.get(two).attributes == {"user": "ada", "page": "2"}
    assert client.id == session_id
    assert any(has_item(nodes, name, session_id) for name in nodes)


def test_an_ignored_request_leaves_the_cookie_of_a_session_whose_node_is_down(
    nodes: Nodes, make_web_worker: MakeWebWorker
) -> None:
    client, web_worker = Client(), make_web_worker(ignore_requests=r".*\.png")
    web_worker.pages["GET /show.png"] = show
    session_id = client.post(web_worker, user="ada").id
    nodes[session_id.partition("-")[2]].kill()
    response = client.get(web_worker, "/show.png")
    assert response.attributes == {"user": "ada"}
    assert response.header("set-cookie") is None
    assert client.get(web_worker).header("set-cookie") is not None


def test_msm_170_who_waits_in_vain_for_a_lock_is_told_to_come_again_and_counted(
    nodes: Nodes, make_web_worker: MakeWebWorker
) -> None:
    client, one = Client(), make_web_worker(locking="all")
    two = make_web_worker(locking="all", timeouts=replace(UNHURRIED, lock=0.3))
    client.post(one, user="ada")
    with running(one, client):
        response = client.post(two, user="eve")
        assert response.status == 503
        assert response.header("retry-after")
        assert response.header("set-cookie") is None
    assert two.manager.statistics().lock_timeouts == 1
    assert client.get(two).attributes == {"user": "ada"}


def _fail(session: Session, form: Form) -> None:
    session.get("user")
    raise ZeroDivisionError


@pytest.mark.parametrize("page", [show, put, _fail], ids=["unchanged", "changed", "failed"])
def test_msm_171_a_lock_has_a_lifetime_and_is_let_go_however_the_request_ends(
    nodes: Nodes, make_web_worker: MakeWebWorker, page: Callable[[Session, Form], None]
) -> None:
    client, web_worker = Client(), make_web_worker(locking="all", timeouts=replace(UNHURRIED, lock_ttl=3))
    session_id = client.post(web_worker, user="ada").id
    lives: list[int] = []

    def page_with_a_look(session: Session, form: Form) -> None:
        len(session)
        (node,) = locks(nodes, session_id)
        with nodes[node].client() as client:
            reply = client.raw_command(b"mg " + LOCK_PREFIX + plain_of(session_id).encode() + b" t")
        lives.append(int(reply.split(b"t")[-1]))
        page(session, form)

    web_worker.pages["POST /page"] = page_with_a_look
    if page is _fail:
        with pytest.raises(ZeroDivisionError):
            client.post(web_worker, "/page")
    else:
        assert client.post(web_worker, "/page", n="1").status == 200
    assert 1 <= lives[0] <= 5
    assert locks(nodes, session_id) == []


def test_msm_171_a_lock_of_a_session_that_cannot_be_read_is_let_go(
    nodes: Nodes, make_manager: Callable[..., SessionManager]
) -> None:
    web_worker = WebWorker(make_manager(locking="all", on_corrupt="error", key_prefix="p"))
    client = Client()
    session_id = client.post(web_worker, user="ada").id
    for server in nodes.values():
        with server.client() as tampering:
            tampering.replace("p" + plain_of(session_id), b"nonsense")
    assert client.post(web_worker, user="eve").status == 503
    assert locks(nodes, session_id, "p") == []


@pytest.mark.parametrize("locking", MODES)
@pytest.mark.parametrize("max_inactive", [None, 15 * 24 * 3600 + 1])
def test_msm_130_131_a_locked_session_of_any_lifetime_is_loaded_from_the_backup(
    nodes: Nodes, make_web_worker: MakeWebWorker, locking: str, max_inactive: float | None
) -> None:
    client, web_worker = Client(), make_web_worker(locking=locking, max_inactive=max_inactive)
    before = client.post(web_worker, user="ada").id
    nodes[before.partition("-")[2]].kill()
    response = client.get(web_worker)
    assert response.attributes == {"user": "ada"}
    assert response.id != before
    assert plain_of(response.id) == plain_of(before)
    assert locks(nodes_up(nodes, before), before) == []


def nodes_up(nodes: Nodes, session_id: str) -> Nodes:
    return {name: server for name, server in nodes.items() if name != session_id.partition("-")[2]}


def test_msm_138_read_only_requests_keep_a_locked_session_alive(make_web_worker: MakeWebWorker) -> None:
    client, web_worker = Client(), make_web_worker(locking="auto", max_inactive=2)
    session_id = client.post(web_worker, user="ada").id
    for _ in range(4):
        time.sleep(1)
        response = client.get(web_worker)
        assert (response.id, response.attributes) == (session_id, {"user": "ada"})
