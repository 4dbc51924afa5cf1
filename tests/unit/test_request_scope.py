"""What a request's scope does with its session, without nodes; with locks see tests/integration/test_locking.py."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Iterator

import pytest

from msm_fast import AsyncSessionManager, Event, Session, SessionManager


@pytest.fixture
def manager() -> Iterator[SessionManager]:
    with SessionManager(ignore_requests=r".*\.png", locking="auto") as manager:
        yield manager


@pytest.fixture
def session_id(manager: SessionManager) -> str:
    with manager.request(None) as session:
        session["user"] = "ada"
    return session.id


def write(session: Session) -> None:
    session["user"] = "grace"


def attributes(manager: SessionManager, session_id: str) -> dict[str, object] | None:
    session = manager.load(session_id)
    return None if session is None else dict(session)


@pytest.mark.parametrize("change", [write, Session.clear, Session.invalidate, Session.rotate_id])
def test_an_ignored_request_may_look_at_its_session_but_changes_nothing(
    manager: SessionManager, session_id: str, change: Callable[[Session], None]
) -> None:
    with manager.request(session_id, "POST", "/logo.png?size=2") as session:
        assert session["user"] == "ada"
        change(session)
    assert attributes(manager, session_id) == {"user": "ada"}


def test_an_ignored_request_makes_no_session(manager: SessionManager) -> None:
    with manager.request(None, "POST", "/logo.png") as session:
        session["user"] = "ada"
    assert manager.load(session.id) is None
    assert manager.statistics().created == 0


@pytest.mark.parametrize("change", [write, Session.clear, Session.invalidate])
def test_a_change_that_is_ignored_is_told_once(
    manager: SessionManager, session_id: str, change: Callable[[Session], None]
) -> None:
    told: list[Event] = []
    manager.subscribe(told.append)
    with manager.request(session_id, "GET", "/logo.png") as session:
        assert session["user"] == "ada"
    assert told == []
    for _ in range(2):
        with manager.request(session_id, "GET", "/logo.png") as session:
            change(session)
    (event,) = told
    assert event.kind == "ignored_change"
    assert "GET /logo.png" in event.detail
    assert session_id not in event.detail


@pytest.mark.parametrize("change", [write, Session.clear, Session.invalidate])
def test_a_change_that_is_ignored_in_an_event_loop_is_told_once(change: Callable[[Session], None]) -> None:
    told: list[Event] = []

    async def serve() -> None:
        async with AsyncSessionManager(ignore_requests=r".*\.png") as manager:
            manager.subscribe(told.append)
            async with manager.request(None) as session:
                session["user"] = "ada"
            for _ in range(2):
                async with manager.request(session.id, "GET", "/logo.png") as ignored:
                    change(ignored)
            found = await manager.load(session.id)
            assert found is not None
            assert dict(found) == {"user": "ada"}

    asyncio.run(serve())
    assert [event.kind for event in told] == ["ignored_change"]


def test_a_path_with_a_line_feed_forges_no_line_of_the_log_where_its_change_is_ignored() -> None:
    told: list[Event] = []
    with SessionManager(ignore_requests=r"/static/[^?]*") as manager:
        manager.subscribe(told.append)
        with manager.request(None, "GET", "/static/a\nERROR all is lost") as session:
            session["user"] = "ada"
    assert "\n" not in told[0].detail


def is_learned(manager: SessionManager, path: str) -> bool:
    return not manager._rules.needs_lock("GET", path)


def test_auto_learns_from_requests_that_were_given_a_session(manager: SessionManager, session_id: str) -> None:
    with manager.request(session_id, "GET", "/page?n=1") as session:
        session.get("user")
    assert is_learned(manager, "/page")
    with manager.request(session_id, "GET", "/page?n=2") as session:
        session["user"] = "grace"
    assert not is_learned(manager, "/page")


def test_auto_learns_so_in_an_event_loop_too() -> None:
    async def serve() -> None:
        async with AsyncSessionManager(locking="auto") as manager:
            async with manager.request(None) as session:
                session["user"] = "ada"
            async with manager.request(session.id, "GET", "/page") as found:
                found.get("user")
            assert not manager._rules.needs_lock("GET", "/page")
            async with manager.request(session.id, "GET", "/page") as found:
                found["user"] = "grace"
            assert manager._rules.needs_lock("GET", "/page")

    asyncio.run(serve())


@pytest.mark.parametrize("change", [Session.invalidate, Session.rotate_id, Session.clear])
def test_ending_or_renaming_a_session_is_a_change(
    manager: SessionManager, session_id: str, change: Callable[[Session], None]
) -> None:
    with manager.request(session_id, "GET", "/page") as session:
        change(session)
    with manager.request(manager.create().id, "GET", "/page") as session:
        session.get("user")
    other = manager.create()
    other["user"] = "ada"
    manager.save(other)
    with manager.request(other.id, "GET", "/page") as session:
        session.get("user")
    assert not is_learned(manager, "/page")


def test_auto_learns_nothing_without_a_session_or_from_a_failure(manager: SessionManager, session_id: str) -> None:
    with manager.request(None, "GET", "/page") as session:
        session.get("user")
    with manager.request(session_id, "GET", "/page"):
        pass
    with pytest.raises(ZeroDivisionError), manager.request(session_id, "GET", "/page") as session:
        session["n"] = 1 / session.get("n", 0)
    with manager.request(session_id, "GET", "/logo.png") as session:
        session.get("user")
    assert not is_learned(manager, "/page")
    assert not is_learned(manager, "/logo.png")


def test_auto_learns_nothing_of_a_change_that_was_not_stored_as_another_request_had_ended_the_session(
    manager: SessionManager, session_id: str
) -> None:
    with manager.request(session_id, "GET", "/page") as session:
        session["user"] = "grace"
        other = manager.load(session_id)
        assert other is not None
        manager.invalidate(other)
    assert not is_learned(manager, "/page")


def test_a_session_that_is_stored_again_for_its_own_sake_is_not_changed_by_the_request(
    manager: SessionManager, session_id: str
) -> None:
    with manager.request(session_id, "GET", "/page") as session:
        session.get("user")
        session.state.must_store = True  # as when a copy of it is missing
    assert manager.statistics().stored == 1
    assert is_learned(manager, "/page")


def test_what_a_request_had_of_its_session_is_gone_with_it(manager: SessionManager, session_id: str) -> None:
    gc.disable()
    try:
        scope = manager.request(session_id)
        scope.session["user"] = "grace"
        scope.save()
        state = weakref.ref(scope.session.state)
        del scope
        assert state() is None
    finally:
        gc.enable()
