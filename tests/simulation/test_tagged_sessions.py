"""Sessions that stay on one host since they cannot be stored end as all others do: for every worker, and for good."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from msm_fast import ConflictError, NearCacheSettings, Session
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.engine.effects import Exchange
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import heal, lose
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker, make_settings

MakeWorker = Callable[..., Worker]


class Unstorable:
    """A type that no serializer knows."""


@pytest.fixture
def worker(make_worker: MakeWorker) -> Worker:
    return make_worker(on_unserializable="local_session", on_cluster_lost="local")


@pytest.fixture
def other(make_worker: MakeWorker) -> Worker:
    return make_worker(on_cluster_lost="local")


def tag(worker: Worker) -> str:
    """Store a session, then give it what cannot be stored."""
    session_id = worker.store(user="ada")
    session = loaded(worker, session_id)
    session["handle"] = Unstorable()
    assert worker.save(session).status == "local"
    return session_id


def log_out(worker: Worker, session: Session) -> None:
    session.invalidate()
    assert worker.save(session).status == "invalidated"


def test_a_logout_ends_it_here_and_what_the_cluster_has_of_it(worker: Worker, other: Worker) -> None:
    session_id = tag(worker)
    slow = loaded(worker, session_id)
    log_out(worker, loaded(worker, session_id))
    assert worker.load(session_id) is None
    assert other.load(session_id) is None
    slow["late"] = True
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session_id) is None


def test_a_logout_elsewhere_ends_it(worker: Worker, other: Worker) -> None:
    session_id = tag(worker)
    log_out(other, loaded(other, session_id))
    assert worker.load(session_id) is None


def test_also_for_who_leaves_the_node_out_of_its_id(worker: Worker, other: Worker) -> None:
    session_id = tag(worker)
    log_out(other, loaded(other, session_id))
    assert worker.load(session_id.partition("-")[0]) is None


def test_its_former_id_ends_everywhere_when_it_gets_a_new_one(worker: Worker, other: Worker) -> None:
    session_id = tag(worker)
    session = loaded(worker, session_id)
    session.rotate_id()
    assert worker.save(session).status == "local"
    assert other.load(session_id) is None
    assert worker.load(session_id) is None
    assert set(read(worker, session.id)) == {"user", "handle"}


def test_so_does_the_former_id_of_one_that_was_never_in_the_cluster(worker: Worker) -> None:
    session = worker.create(user="ada", handle=Unstorable())
    assert worker.save(session).status == "local"
    former_id = session.id
    slow, login = loaded(worker, former_id), loaded(worker, former_id)
    login.rotate_id()
    assert worker.save(login).status == "local"
    assert worker.load(former_id) is None
    slow["late"] = True
    assert worker.save(slow).status == "invalidated"
    assert worker.load(former_id) is None
    assert set(read(worker, login.id)) == {"user", "handle"}


def test_what_made_it_one_comes_along_with_a_new_id_that_another_request_gives_it(
    worker: Worker, other: Worker
) -> None:
    session_id = worker.store(user="ada")
    shopping, login = loaded(worker, session_id), loaded(worker, session_id)
    shopping["handle"], shopping["page"] = Unstorable(), 1
    assert worker.save(shopping).status == "local"
    login.rotate_id()
    login["staff"] = True
    assert worker.save(login).status == "local"
    assert set(read(worker, login.id)) == {"user", "handle", "page", "staff"}
    assert other.load(session_id) is None
    assert worker.load(session_id) is None


def test_a_session_that_was_ended_meanwhile_does_not_become_one(worker: Worker, other: Worker) -> None:
    session_id = worker.store(user="ada")
    slow = loaded(worker, session_id)
    log_out(other, loaded(other, session_id))
    slow["handle"] = Unstorable()
    assert worker.save(slow).status == "invalidated"
    assert worker.load(session_id) is None


def test_it_is_served_while_the_cluster_is_away_and_lives_on_when_its_copies_are_gone(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = tag(worker)
    for node in driver.nodes.values():
        node.server.flush()
    assert set(read(worker, session_id)) == {"user", "handle"}
    lose(driver, worker)
    assert set(read(worker, session_id)) == {"user", "handle"}
    heal(driver, worker)
    assert set(read(worker, session_id)) == {"user", "handle"}


def test_one_that_is_larger_than_near_cache_allows_is_told_to_be_lost(make_worker: MakeWorker) -> None:
    worker = make_worker(on_unserializable="local_session", near_cache=NearCacheSettings(max_bytes=1 << 20))
    told: list[str] = []
    worker.ctx.events.subscribe(lambda event: told.append(event.kind))
    worker.save(worker.create(blob=bytes(1 << 20)))
    assert told == ["unserializable", "dropped"]
    assert worker.ctx.counters.snapshot().dropped == 1


# -- requests that meet


def both_loaded(worker: Worker, session_id: str) -> tuple[Session, Session]:
    one, two = loaded(worker, session_id), loaded(worker, session_id)
    assert one["user"] == two["user"] == "ada"
    return one, two


@pytest.mark.parametrize("policy", ["local_session", "stop_distribution"])
def test_two_requests_that_both_store_what_cannot_be_lose_nothing(make_worker: MakeWorker, policy: str) -> None:
    worker = make_worker(on_unserializable=policy)
    session_id = worker.store(user="ada")
    one, two = both_loaded(worker, session_id)
    one.update(first=1, handle=Unstorable())
    two.update(second=2, socket=Unstorable())
    assert [worker.save(session).status for session in (one, two)] == ["local", "local"]
    assert set(read(worker, session_id)) == {"user", "first", "handle", "second", "socket"}


@pytest.mark.parametrize("policy", ["local_session", "stop_distribution"])
def test_a_request_that_is_slower_than_the_one_with_the_unstorable_value_loses_nothing(
    make_worker: MakeWorker, policy: str
) -> None:
    worker = make_worker(on_unserializable=policy)
    session_id = worker.store(user="ada")
    one, two = both_loaded(worker, session_id)
    one.update(first=1, handle=Unstorable())
    two.update(second=2)
    assert [worker.save(session).status for session in (one, two)] == ["local", "local"]
    assert set(read(worker, session_id)) == {"user", "first", "handle", "second"}


@pytest.mark.parametrize("policy", ["local_session", "stop_distribution"])
def test_what_others_have_stored_since_it_was_found_stays_here_with_it(
    make_worker: MakeWorker, other: Worker, policy: str
) -> None:
    worker = make_worker(on_unserializable=policy)
    session_id = worker.store(user="ada", cart=[1])
    slow = loaded(worker, session_id)
    rival = loaded(other, session_id)
    rival["staff"], rival.max_inactive = True, 60
    del rival["cart"]
    assert other.save(rival).status == "stored"
    slow["handle"] = Unstorable()
    assert worker.save(slow).status == "local"
    assert set(slow) == set(read(worker, session_id)) == {"user", "handle", "staff"}
    assert loaded(worker, session_id).max_inactive == 60


def test_what_is_on_its_way_to_the_cluster_when_it_becomes_one_stays_here_with_it_too(
    driver: SimulatedDriver, worker: Worker
) -> None:
    session_id = worker.store(user="ada", page=1)
    shopping, odd = both_loaded(worker, session_id)
    shopping["cart"], shopping.max_inactive = [1], 60
    del shopping["page"]
    odd["handle"] = Unstorable()

    def save_meanwhile(exchange: Exchange) -> None:
        driver.before_exchange = None
        assert worker.save(odd).status == "local"

    driver.before_exchange = save_meanwhile
    assert worker.save(shopping).status == "local"
    assert set(read(worker, session_id)) == {"user", "handle", "cart"}
    assert loaded(worker, session_id).max_inactive == 60


def test_what_reaches_the_cluster_just_before_it_is_kept_here_stays_here_with_it_too(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = worker.store(user="ada", page=1)
    shopping, odd = both_loaded(worker, session_id)
    shopping["cart"], shopping.max_inactive = [1], 60
    del shopping["page"]
    odd["handle"] = Unstorable()
    swap = worker.ctx.local.swap

    def swap_after_a_save(*swapped: Any) -> bool:
        monkeypatch.undo()
        assert worker.save(shopping).status == "stored"
        return swap(*swapped)

    monkeypatch.setattr(worker.ctx.local, "swap", swap_after_a_save)
    assert worker.save(odd).status == "local"
    assert set(read(worker, session_id)) == {"user", "handle", "cart"}
    assert loaded(worker, session_id).max_inactive == 60


def test_with_on_conflict_error_it_does_not_become_one_over_what_others_have_stored(
    make_worker: MakeWorker, other: Worker
) -> None:
    worker = make_worker(on_unserializable="local_session", on_conflict="error")
    session_id = worker.store(user="ada")
    slow = loaded(worker, session_id)
    rival = loaded(other, session_id)
    rival["staff"] = True
    other.save(rival)
    slow["handle"] = Unstorable()
    with pytest.raises(ConflictError):
        worker.save(slow)
    assert read(worker, session_id) == {"user": "ada", "staff": True}


def test_requests_of_a_tagged_session_see_of_each_other_only_what_was_saved(worker: Worker) -> None:
    session_id = tag(worker)
    one, two = both_loaded(worker, session_id)
    one["first"] = 1
    assert "first" not in two
    two["second"] = 2
    worker.save(one)
    worker.save(two)
    assert set(read(worker, session_id)) == {"user", "handle", "first", "second"}


def test_what_cannot_be_stored_can_be_taken_out_again(worker: Worker) -> None:
    session_id = tag(worker)
    session = loaded(worker, session_id)
    del session["handle"]
    worker.save(session)
    assert read(worker, session_id) == {"user": "ada"}


def test_workers_that_share_a_file_see_each_others_changes(driver: SimulatedDriver, tmp_path: Path) -> None:
    stores = [SqliteStore(str(tmp_path / "sessions.db"), NearCacheSettings()) for _ in range(2)]
    settings = make_settings(on_unserializable="local_session")
    worker, neighbour = (Worker(driver, settings, seed, store) for seed, store in enumerate(stores))
    with closing(stores[0]), closing(stores[1]):
        session_id = tag(worker)
        session = loaded(neighbour, session_id)
        assert dict(session) == {"user": "ada"}, "the value itself stays with its process"
        session["cart"] = [1]
        neighbour.save(session)
        session = loaded(worker, session_id)
        assert set(session) == {"user", "handle", "cart"}
        session["user"] = "grace"
        worker.save(session)
        assert read(neighbour, session_id) == {"user": "grace", "cart": [1]}


def take_out(session: Session) -> None:
    del session["handle"]


def replace(session: Session) -> None:
    session["handle"] = "gone"


@pytest.mark.parametrize(("change", "left"), [(take_out, {}), (replace, {"handle": "gone"})])
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "second"])
def test_what_one_request_takes_out_or_replaces_another_that_has_not_touched_it_does_not_bring_back(
    worker: Worker, change: Callable[[Session], None], left: dict[str, str], is_first: bool
) -> None:
    session_id = tag(worker)
    one, two = both_loaded(worker, session_id)
    change(one)
    two["user"] = "grace"
    for session in (one, two) if is_first else (two, one):
        assert worker.save(session).status == "local"
    assert read(worker, session_id) == {"user": "grace", **left}


@pytest.mark.parametrize("rival", ["theirs", Unstorable()], ids=["storable", "not"])
def test_what_a_request_takes_out_stays_out_whatever_another_has_put_there(worker: Worker, rival: object) -> None:
    session_id = tag(worker)
    one, two = both_loaded(worker, session_id)
    one["handle"] = rival
    del two["handle"]
    for session in (one, two):
        assert worker.save(session).status == "local"
    assert read(worker, session_id) == {"user": "ada"}


@pytest.mark.parametrize("on_conflict", ["merge", "error"])
def test_requests_that_only_read_a_tagged_session_meet_in_nothing(make_worker: MakeWorker, on_conflict: str) -> None:
    worker = make_worker(on_unserializable="local_session", on_conflict=on_conflict)
    session_id = tag(worker)
    one, two = both_loaded(worker, session_id)
    assert one["handle"] is two["handle"]
    assert [worker.save(session).status for session in (one, two)] == ["unchanged", "unchanged"]
    assert worker.ctx.counters.snapshot().conflicts == 0


def test_what_a_request_changes_inside_a_value_and_does_not_save_no_other_sees(worker: Worker) -> None:
    session_id = tag(worker)
    session = loaded(worker, session_id)
    session["cart"] = [1]
    worker.save(session)
    session["cart"].append("after it was saved")
    loaded(worker, session_id)["cart"].append("never saved")
    assert loaded(worker, session_id)["cart"] == [1]


# -- one that stands for a session in the cluster


def test_a_provisional_session_hides_none_in_the_cluster_for_what_was_put_into_it(
    driver: SimulatedDriver, worker: Worker, other: Worker
) -> None:
    session_id = other.store(user="ada")
    lose(driver, worker)
    session = loaded(worker, session_id)
    session["handle"] = Unstorable()
    assert worker.save(session).status == "local"
    assert set(read(worker, session_id)) == {"handle"}
    heal(driver, worker)
    assert read(worker, session_id) == {"user": "ada"}
