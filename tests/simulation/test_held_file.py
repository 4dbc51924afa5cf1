"""Somebody holds the file in which sessions live without the cluster: who is served by the cluster does not notice."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from msm_fast import DistributionState, NearCacheSettings, Reconnect, SessionId, SessionUnavailable
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.engine.events import Event
from msm_fast.engine.keeping import end_locally
from msm_fast.local_store import LocalRecord
from msm_fast.session import LocalKind
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import LOCAL, change, heal, lose
from tests.simulation.test_loading import key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def worker(driver: SimulatedDriver, path: Path) -> Iterator[Worker]:
    store = SqliteStore(str(path), NearCacheSettings(), driver.clock.wall, driver.clock.monotonic)
    yield Worker(driver, make_settings(**LOCAL), local_store=store)
    store.close()


def hold(path: Path) -> sqlite3.Connection:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def end(worker: Worker, session_id: str) -> None:
    session = loaded(worker, session_id)
    session.invalidate()
    assert worker.save(session).status == "invalidated"


def leave_behind(worker: Worker, session_id: str, kind: LocalKind) -> None:
    """Let the file have a record of a session from an outage."""
    plain = session_id.partition("-")[0]
    assert worker.ctx.local.swap(key_of(session_id), 0, LocalRecord(1, b"", 0, kind, plain=plain), ttl_s=0)


def test_a_session_is_found_and_stored_whatever_the_file_has_of_it(worker: Worker, path: Path) -> None:
    session_id = worker.store(user="ada")
    leave_behind(worker, session_id, "provisional")
    held = hold(path)
    session = loaded(worker, session_id)
    assert dict(session) == {"user": "ada"}
    session["page"] = 2
    session.state.local_generation = 1  # as if what is in the file had been laid over it
    assert worker.save(session).status == "stored"
    assert read(worker, session_id) == {"user": "ada", "page": 2}
    held.close()
    assert read(worker, session_id) == {"user": "ada", "page": 2}
    assert len(worker.ctx.local) == 0


def test_a_session_that_has_ended_is_none(worker: Worker, path: Path) -> None:
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session.invalidate()
    worker.save(session)
    parsed = SessionId.parse(session_id)
    assert parsed is not None
    end_locally(worker.ctx, parsed, max_inactive_s=60)
    held = hold(path)
    assert worker.load(session_id) is None
    held.close()


def test_in_an_outage_sessions_are_served_and_only_changes_are_refused(
    driver: SimulatedDriver, worker: Worker, path: Path
) -> None:
    lose(driver, worker)
    session = worker.create(user="ada")
    assert worker.save(session).status == "local"
    held = hold(path)
    session = loaded(worker, session.id)
    assert dict(session) == {"user": "ada"}
    session["page"] = 2
    with pytest.raises(SessionUnavailable, match="cannot be written"):
        worker.save(session)
    held.close()
    assert worker.save(session).status == "local"
    assert read(worker, session.id) == {"user": "ada", "page": 2}


@pytest.mark.parametrize("policy", ["discard", "replay"])
def test_a_file_that_cannot_be_written_does_not_keep_the_cluster_from_being_used_again(
    driver: SimulatedDriver, path: Path, policy: Literal["discard", "replay"]
) -> None:
    settings = make_settings(**LOCAL, reconnect=Reconnect(on_reconnect=policy))
    store = SqliteStore(str(path), NearCacheSettings(), driver.clock.wall, driver.clock.monotonic)
    worker, other = Worker(driver, settings, local_store=store), Worker(driver, settings)
    session_id, logged_out = worker.store(user="ada"), worker.store(user="bob")
    lose(driver, worker)
    change(worker, session_id, page=2)
    end(worker, logged_out)
    held = hold(path)
    heal(driver, worker)
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert other.load(logged_out) is None
    assert read(worker, session_id) == {"user": "ada"} | ({"page": 2} if policy == "replay" else {})
    change(worker, session_id, page=3)
    change(worker, session_id, page=0)
    session = loaded(worker, session_id)
    del session["page"]
    worker.save(session)
    assert read(worker, session_id) == {"user": "ada"}  # nothing that was kept is laid over what is stored since
    end(worker, session_id)
    assert worker.load(session_id) is None
    held.close()
    assert worker.load(session_id) is worker.load(logged_out) is None
    assert len(store) == 0
    store.close()


@pytest.mark.parametrize("policy", ["discard", "replay"])
def test_a_store_that_cannot_be_read_keeps_the_cluster_out_for_some_seconds_and_no_longer(
    driver: SimulatedDriver, worker: Worker, path: Path, policy: Literal["discard", "replay"]
) -> None:
    settings = make_settings(**LOCAL, reconnect=Reconnect(on_reconnect=policy))
    worker = Worker(driver, settings, local_store=worker.ctx.local)
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    session_id, logged_out = worker.store(user="ada"), worker.store(user="bob")
    lose(driver, worker)
    change(worker, session_id, page=2)
    end(worker, logged_out)
    kept = path.rename(path.with_name("kept"))
    path.mkdir()
    with pytest.raises(SessionUnavailable, match="cannot be read"):
        heal(driver, worker)
    driver.clock.advance(9)
    with pytest.raises(SessionUnavailable, match="cannot be read"):
        worker.reconnect()
    assert worker.ctx.state() is DistributionState.LOCAL
    driver.clock.advance(2)
    assert worker.reconnect()
    assert worker.ctx.state() is DistributionState.DISTRIBUTED
    assert ["cannot be read" in event.detail for event in events if event.kind == "dropped"] == [True]
    assert read(worker, session_id) == {"user": "ada"}
    assert worker.save(worker.create(user="eve")).status == "stored"
    path.rmdir()
    kept.rename(path)
    assert worker.load(logged_out) is None
    assert read(worker, session_id) == {"user": "ada", "page": 2}
