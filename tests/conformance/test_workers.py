"""Sessions on real nodes, served by one worker after the other and by two at once."""

import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from msm_fast import Session, SessionId, SessionManager
from tests.conformance.client import Client, Form, Response, WebWorker
from tests.conformance.test_node_failover import has_item
from tests.integration.conftest import Nodes
from tests.integration.test_manager import home_of, wait_until
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached

MakeManager = Callable[..., SessionManager]
MakeWebWorker = Callable[..., WebWorker]
Mode = dict[str, Any]


@pytest.fixture(params=["nodes with names", "one node without"])
def make_site(request: pytest.FixtureRequest, nodes: Nodes) -> Iterator[MakeWebWorker]:
    """Return a function that makes workers of the site, on either kind of cluster."""
    text = nodes["n1"].address if "without" in request.param else ",".join(f"{n}:{nodes[n].address}" for n in nodes)
    managers: list[SessionManager] = []

    def make(**settings: Any) -> WebWorker:
        managers.append(SessionManager(text, **{"timeouts": UNHURRIED, **settings}))
        return WebWorker(managers[-1])

    yield make
    for manager in managers:
        manager.close()


def test_msm_095_a_session_is_found_again_after_its_worker_was_restarted(
    make_web_worker: MakeWebWorker, mode: Mode
) -> None:
    client, web_worker = Client(), make_web_worker(**mode, route="w1")
    session_id = client.post(web_worker, user="ada").id
    web_worker.manager.close()
    response = client.get(make_web_worker(**mode, route="w1"))
    assert response.id == session_id
    assert response.attributes == {"user": "ada"}


def test_msm_096_removing_an_attribute_is_persisted(make_web_worker: MakeWebWorker, mode: Mode) -> None:
    client, web_worker = Client(), make_web_worker(**mode)
    session_id = client.post(web_worker, user="ada", cart="apple").id
    client.post(web_worker, "/remove", name="cart")
    for _ in range(2):
        response = client.get(web_worker)
        assert response.attributes == {"user": "ada"}
        assert response.id == session_id
    web_worker.settle()
    assert client.get(make_web_worker(**mode)).attributes == {"user": "ada"}


def test_msm_098_099_132_a_session_is_made_read_changed_and_read_on_any_cluster(
    make_site: MakeWebWorker, mode: Mode
) -> None:
    client, web_worker = Client(), make_site(**mode)
    session_id = client.post(web_worker, user="ada").id
    has_named_nodes = len(web_worker.manager.nodes()) > 1
    assert ("-" in session_id) == has_named_nodes
    assert client.get(web_worker).attributes == {"user": "ada"}
    client.post(web_worker, user="grace")
    response = client.get(web_worker)
    assert response.attributes == {"user": "grace"}
    assert response.id == session_id


@pytest.mark.parametrize("route", [None, "w1"])
def test_msm_101_a_malformed_id_is_replaced_by_a_well_formed_one(
    make_web_worker: MakeWebWorker, mode: Mode, route: str | None
) -> None:
    client, web_worker = Client("12345"), make_web_worker(**mode, route=route)
    client.post(web_worker, user="ada")
    assert re.fullmatch(r"[^-.]+-[^.]+(\.[\w]+)?", client.id or "")
    assert SessionId(client.id or "").route == route
    assert client.get(web_worker).attributes == {"user": "ada"}


@pytest.mark.parametrize("keeps_cookies", [True, False])
def test_msm_102_103_140_with_synchronous_backups_both_copies_are_there_when_the_response_leaves(
    nodes: Nodes, make_web_worker: MakeWebWorker, mode: Mode, keeps_cookies: bool
) -> None:
    client = Client(keeps_cookies=keeps_cookies)
    session_id = client.post(make_web_worker(**mode, backup="sync"), user="ada").id
    holders = {name for name in nodes if has_item(nodes, name, session_id)}
    assert home_of(session_id) in holders
    assert len(holders) == 2


@pytest.mark.parametrize("keeps_cookies", [True, False])
def test_msm_102_103_140_with_asynchronous_backups_both_copies_are_there_soon_after(
    nodes: Nodes, make_web_worker: MakeWebWorker, mode: Mode, keeps_cookies: bool
) -> None:
    client, web_worker = Client(keeps_cookies=keeps_cookies), make_web_worker(**mode, backup="async")
    session_id = client.post(web_worker, user="ada").id
    if not mode["sticky"]:
        assert has_item(nodes, home_of(session_id), session_id), "only the backup is left to the background"
    wait_until(lambda: len({name for name in nodes if has_item(nodes, name, session_id)}) == 2, timeout_s=2)
    assert has_item(nodes, home_of(session_id), session_id)


def test_msm_105_an_invalidated_session_is_gone_for_every_worker(make_web_worker: MakeWebWorker, mode: Mode) -> None:
    client, one, two = Client(), make_web_worker(**mode), make_web_worker(**mode)
    session_id = client.post(one, user="ada").id
    one.settle()
    cookie = client.post(one, "/invalidate").header("set-cookie")
    assert cookie is not None
    assert "Max-Age=0" in cookie
    assert client.id is None
    for web_worker in (one, two):
        client.id = session_id
        assert client.get(web_worker).attributes == {}
        assert web_worker.manager.load(session_id) is None


@pytest.mark.parametrize("other_pages", [["/"], ["/", "/static", "/"]])
def test_msm_117_120_a_login_and_what_is_written_with_it_hold_on_every_worker(
    make_web_worker: MakeWebWorker, mode: Mode, other_pages: list[str]
) -> None:
    client, one, two = Client(), make_web_worker(**mode, route="w1"), make_web_worker(**mode, route="w2")
    client.post(one, cart="apple")
    client.post(one, "/login", user="ada")
    one.settle()
    for path in other_pages:
        client.get(two, path)
    assert client.get(two, "/protected").status == 200
    client.post(two, page="2")
    assert client.get(two).attributes == {"cart": "apple", "user": "ada", "page": "2"}
    two.settle()
    assert client.get(one, "/protected").status == 200


def test_msm_134_what_another_worker_wrote_is_read(make_web_worker: MakeWebWorker) -> None:
    client, one, two = Client(), make_web_worker(), make_web_worker()
    session_id = client.post(one, page="1").id
    assert client.post(two, page="2").id == session_id
    response = client.get(one)
    assert response.attributes == {"page": "2"}
    assert response.id == session_id


def test_msm_144_a_page_that_does_not_look_at_the_session_asks_no_node(make_web_worker: MakeWebWorker) -> None:
    client, web_worker = Client(), make_web_worker()
    client.post(web_worker, user="ada")
    before = web_worker.manager.statistics().round_trips
    response = client.get(web_worker, "/static")
    assert web_worker.manager.statistics().round_trips == before
    assert response.header("set-cookie") is None
    assert response.header("vary") is None


def test_msm_148_to_149_a_login_that_was_begun_on_one_worker_is_finished_on_another(
    make_web_worker: MakeWebWorker,
) -> None:
    client, one, two = Client(), make_web_worker(), make_web_worker()
    refused = client.get(one, "/protected")
    assert (refused.status, refused.header("location")) == (302, "/login")
    before_login = client.id
    done = client.post(two, "/login", user="ada")
    assert (done.status, done.header("location")) == (302, "/protected")
    assert client.id not in (None, before_login), "an id from before the login is worth nothing after it"
    client.post(two, cart="apple")
    assert client.get(one, "/protected").attributes == {"user": "ada", "cart": "apple"}


@pytest.mark.parametrize("id_is", ["old", "new"])
def test_msm_154_after_a_node_was_restarted_the_next_request_succeeds(
    nodes: Nodes, make_manager: MakeManager, id_is: str
) -> None:
    manager = make_manager()
    with manager.request(None, "POST") as session:
        session["user"] = "ada"
    home = home_of(session.id)
    nodes[home].kill()
    nodes[home].start()
    with manager.request(session.id if id_is == "old" else None, "POST") as again:
        assert dict(again) == ({"user": "ada"} if id_is == "old" else {})
        again["page"] = 1
    found = manager.load(again.id)
    assert found is not None
    assert found["page"] == 1


# -- at the same time


class Gate:
    """A page that looks at the session, waits until it may go on, and then writes."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_go_on = threading.Event()

    def __call__(self, session: Session, form: Form) -> None:
        len(session)
        self.entered.set()
        assert self.may_go_on.wait(10)
        session.update(form)


def overlapping(slow: WebWorker, client: Client, fields: Form, meanwhile: Callable[[], Response]) -> Response:
    """Post fields to a page of slow that takes its time; let meanwhile happen, or wait, before it goes on."""
    gate = slow.pages["POST /slow"] = Gate()
    responses: list[Response] = []
    first = threading.Thread(target=lambda: responses.append(Client(client.id).post(slow, "/slow", **fields)))
    second = threading.Thread(target=meanwhile)
    first.start()
    assert gate.entered.wait(10)
    second.start()
    second.join(0.2)
    gate.may_go_on.set()
    first.join(10)
    second.join(10)
    assert not first.is_alive()
    assert not second.is_alive()
    return responses[0]


def test_msm_093_133_requests_of_one_worker_that_overlap_and_one_of_another_all_count(
    make_web_worker: MakeWebWorker,
) -> None:
    client, one, two = Client(), make_web_worker(), make_web_worker()
    client.post(one, start="1")
    response = overlapping(one, client, {"slow": "1"}, lambda: Client(client.id).post(one, quick="1"))
    assert response.status == 200
    client.post(two, later="1")
    assert client.get(two).attributes == {"start": "1", "slow": "1", "quick": "1", "later": "1"}


def test_msm_135_requests_of_two_workers_that_overlap_lose_nothing(make_web_worker: MakeWebWorker) -> None:
    client, one, two = Client(), make_web_worker(), make_web_worker()
    client.post(one, start="1")
    overlapping(one, client, {"slow": "1"}, lambda: Client(client.id).post(two, quick="1"))
    assert client.get(one).attributes == {"start": "1", "slow": "1", "quick": "1"}
    assert one.manager.statistics().conflicts == 1
