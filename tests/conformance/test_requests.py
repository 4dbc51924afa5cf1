"""What one request does to its client's cookie and to the session behind it, on one worker without nodes."""

import re
from collections.abc import Iterator

import pytest

from msm_fast import SessionManager
from msm_fast.integrations.cookies import CookieSettings
from tests.conformance.client import Client, WebWorker


@pytest.fixture
def web_worker() -> Iterator[WebWorker]:
    with SessionManager() as manager:
        yield WebWorker(manager)


def test_msm_063_each_request_has_its_own_view_also_within_one_thread(web_worker: WebWorker) -> None:
    manager = web_worker.manager
    with manager.request(None, "POST") as session:
        session["a"] = 0
    first, second = manager.request(session.id, "POST"), manager.request(session.id, "POST")
    first.session["a"] = 1
    second.session["b"] = 2
    assert "b" not in first.session
    second.save()
    first.save()
    first.save()
    with manager.request(session.id) as later:
        assert dict(later) == {"a": 1, "b": 2}


@pytest.mark.parametrize("name", ["session", "JSESSIONID", "__Host-sid"])
def test_msm_071_074_the_cookie_has_the_name_that_was_configured(name: str) -> None:
    with SessionManager() as manager:
        web_worker = WebWorker(manager, CookieSettings(name=name))
        client = Client(cookie_name=name)
        cookie = client.post(web_worker, user="ada").header("set-cookie")
        assert cookie is not None
        assert cookie.startswith(f"{name}={client.id};")
        assert client.get(web_worker).attributes == {"user": "ada"}


@pytest.mark.parametrize("path", ["/", "/static"])
def test_msm_075_to_076_without_an_id_and_without_a_change_nothing_is_stored(web_worker: WebWorker, path: str) -> None:
    response = Client().get(web_worker, path)
    assert response.header("set-cookie") is None
    assert web_worker.manager.statistics().created == 0


def test_msm_077_a_new_session_is_stored_under_the_id_in_the_responses_cookie(web_worker: WebWorker) -> None:
    client = Client()
    response = client.post(web_worker, user="ada")
    assert client.id == response.id
    found = web_worker.manager.load(response.id)
    assert found is not None
    assert dict(found) == {"user": "ada"}


def test_msm_078_a_request_that_changes_its_id_is_stored_under_the_new_one(web_worker: WebWorker) -> None:
    client = Client()
    old = client.post(web_worker, cart="apple").id
    new = client.post(web_worker, "/login", user="ada").id
    assert client.id == new != old
    assert client.get(web_worker).attributes == {"cart": "apple", "user": "ada"}
    assert web_worker.manager.load(old) is None


@pytest.mark.parametrize("keeps_cookies", [True, False])
def test_msm_103_the_application_knows_the_id_before_any_cookie_is_kept(
    web_worker: WebWorker, keeps_cookies: bool
) -> None:
    client = Client(keeps_cookies=keeps_cookies)
    session_id = client.post(web_worker, user="ada").id
    found = web_worker.manager.load(session_id)
    assert found is not None
    assert dict(found) == {"user": "ada"}


def test_msm_139_an_id_that_was_given_is_taken_again_and_again(web_worker: WebWorker) -> None:
    client = Client()
    session_id = client.post(web_worker, user="ada").id
    for _ in range(3):
        response = client.get(web_worker)
        assert response.id == session_id
        assert response.header("set-cookie") is None
        assert response.attributes == {"user": "ada"}


def test_msm_179_a_session_made_in_a_request_outlives_the_end_of_a_parallel_one(web_worker: WebWorker) -> None:
    manager = web_worker.manager
    making = manager.request(None, "POST")
    making.session["user"] = "ada"
    making.save()
    parallel = manager.request(making.session.id)
    assert parallel.session["user"] == "ada"
    parallel.save()
    making.session["cart"] = ["apple"]
    making.save()
    with manager.request(making.session.id) as later:
        assert dict(later) == {"user": "ada", "cart": ["apple"]}


@pytest.mark.parametrize("others", [["not an id"], ["-"], ["a b", "x" * 300], ["", '"quoted"']])
def test_msm_186_of_several_cookies_the_one_that_is_an_id_counts(web_worker: WebWorker, others: list[str]) -> None:
    client = Client()
    client.post(web_worker, user="ada")
    client.sent_before = "".join(f"session={value}; " for value in others)
    assert client.get(web_worker).attributes == {"user": "ada"}


def test_msm_186_a_response_sets_one_session_cookie(web_worker: WebWorker) -> None:
    client = Client()
    for path in ("/", "/login", "/login", "/invalidate"):
        assert len(client.post(web_worker, path, user="ada").all("set-cookie")) == 1


def test_msm_101_a_client_with_an_id_that_is_none_gets_one_of_our_form(web_worker: WebWorker) -> None:
    client = Client("12345")
    client.post(web_worker, user="ada")
    assert re.fullmatch(r"[0-9a-f]{32}", client.id or "")
