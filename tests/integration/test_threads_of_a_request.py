"""The session of one request, used by several of its threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import SaveResult, SessionManager
from tests.integration.meeting import PATIENCE_S, Meeting

pytestmark = pytest.mark.memcached


@pytest.fixture
def manager_class() -> type[SessionManager]:
    return SessionManager


class SlowlySaved:
    """A request's session, one save of which is held up by the answers of the nodes."""

    def __init__(self, manager: SessionManager, cookie: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        self._driver = manager._driver
        self._monkeypatch = monkeypatch
        self.scope = manager.request(cookie, "POST")
        self.session = self.scope.session

    def save_while(self, act: Callable[[], object]) -> SaveResult:
        """Save it in another thread, and do act meanwhile."""
        meeting, exchange = Meeting(), self._driver.exchange

        def exchange_slowly(*args: Any) -> Any:
            self._monkeypatch.undo()
            outcomes = exchange(*args)
            meeting.hold_up()
            return outcomes

        self._monkeypatch.setattr(self._driver, "exchange", exchange_slowly)
        return meeting.while_held_up(self.scope.save, act)


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("waits", [True, False])
def test_a_save_that_is_on_its_way_takes_nothing_from_a_login(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch, is_known: bool, waits: bool
) -> None:
    with manager.request(None) as before:
        before["cart"] = [1]
    slow = SlowlySaved(manager, before.id if is_known else None, monkeypatch)
    slow.session["seen"] = 1
    given = slow.session.id
    login = threading.Thread(target=slow.scope.save)

    def log_in() -> None:
        slow.session.rotate_id()
        slow.session["user"] = "ann"
        if not waits:
            login.start()

    assert slow.save_while(log_in).status == "stored"
    if waits:
        login.start()
    login.join(PATIENCE_S)
    found = manager.load(slow.session.id)
    assert found is not None
    assert dict(found) == {**({"cart": [1]} if is_known else {}), "seen": 1, "user": "ann"}
    assert manager.load(given) is None


def test_a_lifetime_that_is_set_while_a_save_is_on_its_way_is_stored_by_the_next(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = SlowlySaved(manager, None, monkeypatch)
    slow.session["n"] = 1
    slow.save_while(lambda: setattr(slow.session, "max_inactive", 60))
    slow.scope.save()
    found = manager.load(slow.session.id)
    assert found is not None
    assert found.max_inactive == 60
