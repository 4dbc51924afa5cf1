"""The manager's own rules, on the embedded local store."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msm_fast import (
    ApplicationStopped,
    ConfigurationError,
    ConflictError,
    DistributionState,
    SerializationError,
    Session,
    SessionManager,
    Settings,
)


@pytest.fixture
def manager() -> Iterator[SessionManager]:
    with SessionManager() as manager:
        yield manager


def store(manager: SessionManager, **attributes: object) -> str:
    session = manager.create()
    session.update(attributes)
    assert manager.save(session).status == "local"
    return session.id


def loaded(manager: SessionManager, session_id: str) -> Session:
    session = manager.load(session_id)
    assert session is not None
    return session


def test_without_nodes_sessions_are_kept_in_the_process(manager: SessionManager) -> None:
    session = loaded(manager, store(manager, user="ada"))
    assert session["user"] == "ada"
    assert session.is_local
    assert not session.is_new
    assert manager.distribution.state is DistributionState.LOCAL
    assert manager.nodes() == []


def test_two_requests_of_one_process_merge_as_they_would_on_a_cluster(manager: SessionManager) -> None:
    session_id = store(manager, a=0, b=0)
    first, second = loaded(manager, session_id), loaded(manager, session_id)
    first["a"], second["b"] = 1, 2
    manager.save(first)
    manager.save(second)
    assert dict(loaded(manager, session_id)) == {"a": 1, "b": 2}
    assert manager.statistics().conflicts == 1


def test_on_conflict_error_holds_locally_too() -> None:
    with SessionManager(on_conflict="error") as manager:
        session_id = store(manager, a=0)
        first, second = loaded(manager, session_id), loaded(manager, session_id)
        first["a"], second["a"] = 1, 2
        manager.save(first)
        with pytest.raises(ConflictError):
            manager.save(second)
        assert loaded(manager, session_id)["a"] == 1


def test_invalidate_ends_a_session_and_a_slower_request_cannot_bring_it_back(manager: SessionManager) -> None:
    session_id = store(manager, user="ada")
    slow = loaded(manager, session_id)
    assert manager.invalidate(loaded(manager, session_id)).status == "invalidated"
    slow["page"] = 2
    assert manager.save(slow).status == "invalidated"
    assert manager.load(session_id) is None


def test_rotate_id_gives_a_new_id_and_ends_the_old_one(manager: SessionManager) -> None:
    session_id = store(manager, user="ada")
    session = loaded(manager, session_id)
    manager.rotate_id(session)
    assert session.id != session_id
    assert session.id_changed
    assert loaded(manager, session.id)["user"] == "ada"
    assert manager.load(session_id) is None


def test_what_another_request_has_stored_comes_along_with_a_new_id(manager: SessionManager) -> None:
    session_id = store(manager, user="ada", old=1)
    shopping, login = loaded(manager, session_id), loaded(manager, session_id)
    shopping["cart"] = ["apple"]
    del shopping["old"]
    shopping.max_inactive = 60
    manager.save(shopping)
    login.rotate_id()
    login["staff"] = True
    manager.save(login)
    found = loaded(manager, login.id)
    assert dict(found) == {"user": "ada", "cart": ["apple"], "staff": True}
    assert found.max_inactive == 60


def test_a_conflict_over_that_is_told_where_it_is_to_be() -> None:
    with SessionManager(on_conflict="error") as manager:
        session_id = store(manager, user="ada")
        shopping, login = loaded(manager, session_id), loaded(manager, session_id)
        shopping["cart"] = ["apple"]
        manager.save(shopping)
        login.rotate_id()
        with pytest.raises(ConflictError):
            manager.save(login)
        assert dict(loaded(manager, session_id)) == {"user": "ada", "cart": ["apple"]}


def test_what_cannot_be_stored_stops_the_manager_and_tells_the_application_once() -> None:
    stopped: list[bool] = []
    manager = SessionManager(on_stop=lambda: stopped.append(True))
    session, other = manager.create(), manager.create()
    session["handle"] = other["handle"] = object()
    with pytest.raises(SerializationError):
        manager.save(session)
    for refused in (
        lambda: manager.save(other),
        manager.create,
        lambda: manager.load(other.id),
        lambda: manager.request(None),
    ):
        with pytest.raises(ApplicationStopped):
            refused()
    assert stopped == [True]
    assert manager.distribution.state is DistributionState.STOPPED


def test_a_black_listed_attribute_is_null_in_local_sessions_too_and_can_be_taken_off(tmp_path: Path) -> None:
    path = str(tmp_path / "black.json")
    with SessionManager(on_unserializable="blacklist", blacklist_path=path) as manager:
        session_id = store(manager, user="ada", handle=object())
        assert dict(loaded(manager, session_id)) == {"user": "ada", "handle": None}
        assert list(manager.blacklist) == [("handle", "builtins.object")]
        assert manager.statistics().blacklisted == 1
    with SessionManager(on_unserializable="blacklist", blacklist_path=path) as manager:
        assert ("handle", "builtins.object") in manager.blacklist
        manager.blacklist.clear()
        assert len(manager.blacklist) == 0


def test_what_the_log_says_to_do_takes_an_attribute_off_the_black_list(caplog: pytest.LogCaptureFixture) -> None:
    with SessionManager(on_unserializable="blacklist") as manager:
        store(manager, **{"owner's handle": object()})
        (call,) = re.findall(r"with (manager\.blacklist\.remove\(.*\)) when", caplog.text)
        assert eval(call, {"manager": manager})
        assert list(manager.blacklist) == []


def test_a_black_list_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "black.json"
    path.write_text("broken")
    with pytest.raises(ConfigurationError, match=r"black\.json"):
        SessionManager(blacklist_path=str(path))


def test_the_attribute_filter_holds_for_local_sessions_too() -> None:
    with SessionManager(attribute_filter="user|cart") as manager:
        session_id = store(manager, user="ada", secret="hunter2")
        assert dict(loaded(manager, session_id)) == {"user": "ada"}


def test_settings_come_as_one_object_or_by_name_but_not_both() -> None:
    settings = Settings.build(max_inactive=60)
    with SessionManager(settings) as manager:
        assert manager.create().max_inactive == 60
    with pytest.raises(ConfigurationError):
        SessionManager(settings, max_inactive=30)


def test_a_request_is_a_block_that_saves_at_its_end(manager: SessionManager) -> None:
    with manager.request(None, method="POST") as session:
        session["user"] = "ada"
    assert loaded(manager, session.id)["user"] == "ada"


def test_a_session_may_be_given_a_lifetime_of_its_own(manager: SessionManager) -> None:
    session_id = store(manager, user="ada")
    with manager.request(session_id, "POST") as session:
        assert session.absolute_lifetime is None
        session.absolute_lifetime = 60
    assert loaded(manager, session_id).absolute_lifetime == 60
    with pytest.raises(ValueError, match="absolute_lifetime"):
        session.absolute_lifetime = 0


def test_an_empty_session_is_stored_if_that_is_asked_for(manager: SessionManager) -> None:
    with manager.request(None) as session:
        session.store_anyway()
    assert dict(loaded(manager, session.id)) == {}


def test_a_manager_that_was_stopped_refuses_all(manager: SessionManager) -> None:
    manager.stop()
    with pytest.raises(ApplicationStopped):
        manager.create()


def test_sticky_workers_without_a_route_are_told_at_the_start_what_that_costs(caplog: pytest.LogCaptureFixture) -> None:
    SessionManager("n1:127.0.0.1:1,n2:127.0.0.1:2", sticky=True).close()
    assert ["a route of its own" in record.message for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "settings",
    [{"sticky": True, "route": "w1"}, {"sticky": False}, {"nodes": None, "sticky": True}],
)
def test_where_no_route_is_needed_nothing_is_said(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    SessionManager(**{"nodes": "n1:127.0.0.1:1,n2:127.0.0.1:2", **settings}).close()
    assert not caplog.records
