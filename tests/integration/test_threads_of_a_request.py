"""The session of one request, used by several of its threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import SaveResult, SessionManager
from tests.integration.meeting import PATIENCE_S, Meeting

pytestmark = pytest.mark.memcached

SaveWhile = Callable[[Callable[[], SaveResult], Callable[[], object]], SaveResult]


@pytest.fixture
def manager_class() -> type[SessionManager]:
    return SessionManager


@pytest.fixture
def save_while(manager: SessionManager, monkeypatch: pytest.MonkeyPatch) -> SaveWhile:
    """Return a function that saves a session in another thread, and does something before that has its answers."""

    def save_while(save: Callable[[], SaveResult], act: Callable[[], object]) -> SaveResult:
        meeting, exchange = Meeting(), manager._driver.exchange

        def exchange_slowly(*args: Any) -> Any:
            monkeypatch.undo()
            outcomes = exchange(*args)
            meeting.hold_up()
            return outcomes

        monkeypatch.setattr(manager._driver, "exchange", exchange_slowly)
        return meeting.while_held_up(save, act)

    return save_while


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("waits", [True, False])
def test_a_save_that_is_on_its_way_takes_nothing_from_a_login(
    manager: SessionManager, save_while: SaveWhile, is_known: bool, waits: bool
) -> None:
    with manager.request(None) as before:
        before["cart"] = [1]
    scope = manager.request(before.id if is_known else None, "POST")
    scope.session["seen"] = 1
    given = scope.session.id
    login = threading.Thread(target=scope.save)

    def log_in() -> None:
        scope.session.rotate_id()
        scope.session["user"] = "ann"
        if not waits:
            login.start()

    assert save_while(scope.save, log_in).status == "stored"
    if waits:
        login.start()
    login.join(PATIENCE_S)
    found = manager.load(scope.session.id)
    assert found is not None
    assert dict(found) == {**({"cart": [1]} if is_known else {}), "seen": 1, "user": "ann"}
    assert manager.load(given) is None


def test_a_lifetime_that_is_set_while_a_save_is_on_its_way_is_stored_by_the_next(
    manager: SessionManager, save_while: SaveWhile
) -> None:
    scope = manager.request(None, "POST")
    scope.session["n"] = 1
    save_while(scope.save, lambda: setattr(scope.session, "max_inactive", 60))
    scope.save()
    found = manager.load(scope.session.id)
    assert found is not None
    assert found.max_inactive == 60


def test_a_session_without_a_request_may_get_a_new_id_while_a_save_is_on_its_way(
    manager: SessionManager, save_while: SaveWhile
) -> None:
    session = manager.create()
    session["seen"] = 1
    given = session.id
    save_while(lambda: manager.save(session), session.rotate_id)
    session["user"] = "ann"
    assert manager.save(session).status == "stored"
    assert dict(manager.load(session.id) or {}) == {"seen": 1, "user": "ann"}
    assert manager.load(given) is None


def test_a_lifetime_that_another_request_has_set_is_no_reason_to_save_once_more(manager: SessionManager) -> None:
    with manager.request(None) as session:
        session["user"] = "ann"
    scope = manager.request(session.id, "POST")
    scope.session["seen"] = 1
    with manager.request(session.id, "POST") as other:
        other.max_inactive = 600
    assert scope.save().status == "merged"
    assert scope.session.max_inactive == 600
    assert scope.save().status == "unchanged"
