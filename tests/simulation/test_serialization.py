"""What becomes of a session with a value that cannot be stored, or with too many bytes, under each policy."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from msm_fast import Event, SerializationError, Session, SessionTooLarge, register_type
from msm_fast.engine.effects import Exchange
from msm_fast.engine.saving import save
from msm_fast.engine.serialization import StaysLocal
from msm_fast.policies import SaveResult
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_loading import home_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]
ONE_MIB = 1 << 20


class Unstorable:
    """A type that no serializer knows."""


UNSTORABLE = f"{__name__}.Unstorable"


def events_of(worker: Worker) -> list[Event]:
    told: list[Event] = []
    worker.ctx.events.subscribe(told.append)
    return told


def kinds(told: list[Event]) -> list[str]:
    return [event.kind for event in told]


def save_in_cluster(worker: Worker, session: Session) -> SaveResult:
    return worker.driver.run(save(worker.ctx, session.state))


# -- stop_application


def test_a_failure_stops_the_application_and_is_told_without_the_id(worker: Worker) -> None:
    told = events_of(worker)
    session = worker.create(user="ada", handle=Unstorable())
    with pytest.raises(SerializationError, match=r"'handle' of type .*Unstorable") as raised:
        worker.save(session)
    assert isinstance(raised.value.__cause__, TypeError), "the serializer's, with where it was raised"
    assert worker.ctx.is_stopped
    assert kinds(told) == ["unserializable", "application_stopped"]
    assert not any(session.state.session_id.plain in event.detail for event in told)
    assert worker.ctx.counters.snapshot().unserializable == 1


def test_a_session_that_is_too_large_stops_the_application_before_anything_is_sent(worker: Worker) -> None:
    session = worker.create(blob=bytes(ONE_MIB))
    with pytest.raises(SessionTooLarge) as caught:
        worker.save(session)
    assert caught.value.limit == worker.ctx.item_limits.record_bytes(worker.ctx.topology.nodes)
    assert caught.value.size > ONE_MIB
    assert worker.ctx.is_stopped
    assert worker.driver.exchanges == 0


def test_a_session_just_as_large_as_the_limit_is_stored(driver: SimulatedDriver, worker: Worker) -> None:
    with pytest.raises(SessionTooLarge) as caught:
        worker.save(worker.create(blob=bytes(ONE_MIB)))
    fits = ONE_MIB - (caught.value.size - caught.value.limit)
    assert worker.save(worker.create(blob=bytes(fits))).status == "stored"
    servers = [node.server for node in driver.nodes.values()]
    copies = [server.peek(key) for server in servers for key in server.keys()]  # noqa: SIM118 - it is no dict
    assert [len(copy.value) for copy in copies if copy] == [caught.value.limit] * 2
    with pytest.raises(SessionTooLarge):
        worker.save(worker.create(blob=bytes(fits + 1)))


# -- local_session and stop_distribution: raised here, carried out by the caller


@pytest.mark.parametrize(("policy", "tags_session"), [("local_session", True), ("stop_distribution", False)])
def test_a_session_that_cannot_be_stored_is_to_stay_local(
    make_worker: MakeWorker, policy: str, tags_session: bool
) -> None:
    worker = make_worker(on_unserializable=policy)
    told = events_of(worker)
    session = worker.create(user="ada", handle=Unstorable())
    with pytest.raises(StaysLocal) as caught:
        save_in_cluster(worker, session)
    stays = caught.value
    assert stays.tags_session is tags_session
    assert "'handle'" in stays.reason
    assert UNSTORABLE in stays.reason
    assert isinstance(stays.__cause__, SerializationError)
    assert stays.body == worker.create(user="ada").state.attributes.encode()[0], "what can be encoded"
    assert isinstance(session["handle"], Unstorable)
    assert not worker.ctx.is_stopped
    assert worker.driver.exchanges == 0
    assert kinds(told) == ["unserializable"]
    assert session.state.session_id.plain not in told[0].detail


@pytest.mark.parametrize(("policy", "tags_session"), [("local_session", True), ("stop_distribution", False)])
def test_a_session_that_is_too_large_is_to_stay_local(make_worker: MakeWorker, policy: str, tags_session: bool) -> None:
    worker = make_worker(on_unserializable=policy)
    session = worker.create(blob=bytes(ONE_MIB))
    with pytest.raises(StaysLocal) as caught:
        save_in_cluster(worker, session)
    assert caught.value.tags_session is tags_session
    assert caught.value.body == session.state.attributes.encode()[0]
    assert isinstance(caught.value.__cause__, SessionTooLarge)


@pytest.mark.parametrize("policy", ["local_session", "stop_distribution"])
def test_a_session_that_stays_local_is_told_once_as_a_warning(
    make_worker: MakeWorker, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker(on_unserializable=policy)
    session, other = worker.create(handle=Unstorable()), worker.create(handle=Unstorable())
    with caplog.at_level(logging.DEBUG, "msm_fast"):
        for saved in (session, session, other, session):
            with pytest.raises(StaysLocal):
                save_in_cluster(worker, saved)
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert worker.ctx.counters.snapshot().unserializable == 2


@pytest.mark.parametrize("value", [Unstorable(), bytes(ONE_MIB)], ids=["type", "size"])
@pytest.mark.parametrize(
    ("policy", "kinds_told", "status_of_others"),
    [
        ("local_session", ["unserializable"], "stored"),
        ("stop_distribution", ["unserializable", "state_changed"], "local"),
    ],
)
def test_the_requests_that_follow_find_the_value_itself_and_tell_nothing_more(
    make_worker: MakeWorker, policy: str, kinds_told: list[str], status_of_others: str, value: object
) -> None:
    worker = make_worker(on_unserializable=policy)
    session_id = worker.store(user="ada")
    told = events_of(worker)
    session = loaded(worker, session_id)
    session["handle"] = value
    assert worker.save(session).status == "local"
    for step in range(3):
        session = loaded(worker, session_id)
        assert session.is_local
        assert session["handle"] == value
        session["step"] = step
        assert worker.save(session).status == "local"
    assert kinds(told) == kinds_told
    assert worker.save(worker.create(user="grace")).status == status_of_others


def test_once_distribution_is_stopped_no_further_session_is_told(make_worker: MakeWorker) -> None:
    worker = make_worker(on_unserializable="stop_distribution")
    worker.ctx.is_stopped = True
    told = events_of(worker)
    with pytest.raises(StaysLocal):
        save_in_cluster(worker, worker.create(handle=Unstorable()))
    assert told == []


def test_a_session_that_becomes_unstorable_while_it_is_merged_stays_local(make_worker: MakeWorker) -> None:
    one, two = make_worker(), make_worker(on_unserializable="local_session")
    session_id = one.store(a=0, b=0)
    mine, theirs = loaded(two, session_id), loaded(one, session_id)
    mine["a"] = "x" * 600_000
    theirs["b"] = "x" * 600_000
    one.save(theirs)
    with pytest.raises(StaysLocal):
        save_in_cluster(two, mine)
    assert read(one, session_id) == {"a": 0, "b": "x" * 600_000}, "what is stored stays"


# -- blacklist


@pytest.fixture
def listing(make_worker: MakeWorker) -> Worker:
    return make_worker(on_unserializable="blacklist")


def test_an_attribute_of_an_unknown_type_is_stored_as_null_and_black_listed(
    listing: Worker, make_worker: MakeWorker
) -> None:
    told = events_of(listing)
    session = listing.create(user="ada", handle=Unstorable())
    assert listing.save(session).status == "stored"
    assert isinstance(session["handle"], Unstorable), "this request still has it"
    assert read(make_worker(), session.id) == {"user": "ada", "handle": None}
    assert list(listing.ctx.blacklist) == [("handle", UNSTORABLE)]
    assert kinds(told) == ["blacklisted", "unserializable"]
    assert all("'handle'" in event.detail and UNSTORABLE in event.detail for event in told)
    assert not any(session.state.session_id.plain in event.detail for event in told)
    statistics = listing.ctx.counters.snapshot()
    assert (statistics.blacklisted, statistics.unserializable) == (1, 1)


def test_a_black_listed_attribute_is_neither_tried_nor_told_again(listing: Worker) -> None:
    class Later:
        """A type that no serializer knows yet."""

    listing.save(listing.create(handle=Later()))
    told = events_of(listing)
    tried: list[object] = []
    register_type(Later, "test.simulation.Later", tried.append, lambda content: Later())
    session = listing.create(user="grace", handle=Later())
    assert listing.save(session).status == "stored"
    assert listing.save(session).status == "unchanged"
    assert read(listing, session.id) == {"user": "grace", "handle": None}
    assert told == []
    assert tried == []
    listing.ctx.blacklist.clear()
    assert listing.save(session).status == "stored"
    assert len(tried) > 0
    assert isinstance(read(listing, session.id)["handle"], Later)


def test_another_type_under_a_black_listed_name_is_stored(listing: Worker) -> None:
    listing.ctx.blacklist.add("handle", "shop.Handle")
    session = listing.create(handle="text")
    listing.save(session)
    assert read(listing, session.id) == {"handle": "text"}


def test_only_the_policy_blacklist_consults_the_black_list(worker: Worker) -> None:
    worker.ctx.blacklist.add("user", "builtins.str")
    assert read(worker, worker.store(user="ada")) == {"user": "ada"}


@pytest.mark.parametrize("value", ["\ud800", ["fine", object()], {"nested": {"handle": object()}}])
def test_a_value_at_fault_does_not_black_list_its_type_for_all_sessions(listing: Worker, value: Any) -> None:
    told = events_of(listing)
    session = listing.create(user="ada", cart=value)
    listing.save(session)
    assert read(listing, session.id) == {"user": "ada", "cart": None}
    assert kinds(told) == ["unserializable"]
    assert list(listing.ctx.blacklist) == []
    other = listing.store(cart="text" if isinstance(value, str) else type(value)())
    assert read(listing, other)["cart"] is not None


def test_a_value_at_fault_is_told_once_a_minute_per_session(driver: SimulatedDriver, listing: Worker) -> None:
    told = events_of(listing)
    session = listing.create(cart=[object()])
    for step in range(5):
        session["step"] = step
        listing.save(session)
    assert len(told) == 1
    driver.clock.advance(61)
    listing.save(session)
    listing.save(listing.create(cart=[object()]))
    assert kinds(told) == ["unserializable"] * 3


def test_workers_share_the_black_list_by_its_file(
    driver: SimulatedDriver, make_worker: MakeWorker, tmp_path: Path
) -> None:
    path = str(tmp_path / "black.json")
    one, two = (make_worker(on_unserializable="blacklist", blacklist_path=path) for _ in range(2))
    told = events_of(two)
    one.save(one.create(handle=Unstorable()))
    driver.clock.advance(5)
    session = two.create(handle=Unstorable())
    two.save(session)
    assert told == [], "it knew"
    assert read(two, session.id) == {"handle": None}
    assert list(make_worker(blacklist_path=path).ctx.blacklist) == [("handle", UNSTORABLE)]


def test_a_black_list_that_cannot_be_saved_fails_no_request(
    make_worker: MakeWorker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    worker = make_worker(on_unserializable="blacklist", blacklist_path=str(folder / "black.json"))
    folder.rmdir()
    told = events_of(worker)
    with caplog.at_level(logging.DEBUG, "msm_fast"):
        assert worker.save(worker.create(handle=Unstorable())).status == "stored"
    assert kinds(told) == ["blacklist_problem", "blacklisted", "unserializable"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    assert len(worker.ctx.blacklist) == 1


# -- blacklist: too large


def test_the_largest_attribute_gives_way_until_the_session_fits(listing: Worker) -> None:
    told = events_of(listing)
    session = listing.create(small="x" * 1000, large="x" * 500_000, larger=bytes(600_000), largest=bytes(700_000))
    assert listing.save(session).status == "stored"
    assert read(listing, session.id) == {
        "small": "x" * 1000, "large": "x" * 500_000, "larger": None, "largest": None
    }  # fmt: skip
    assert len(session["largest"]) == 700_000
    assert list(listing.ctx.blacklist) == [], "neither the name nor the type is at fault"
    (event,) = told
    assert event.kind == "unserializable"
    assert "'largest' of 700,005 bytes" in event.detail
    assert "'larger' of 600,005 bytes" in event.detail
    assert listing.ctx.counters.snapshot().unserializable == 2
    assert listing.save(session).status == "unchanged"


def test_what_was_stored_and_fitted_does_not_give_way_to_what_is_new(listing: Worker) -> None:
    session_id = listing.store(album=bytes(800_000))
    session = loaded(listing, session_id)
    assert len(session["album"]) == 800_000
    session["thumbnail"], session["note"] = bytes(400_000), "x"
    listing.save(session)
    assert read(listing, session_id) == {"album": bytes(800_000), "thumbnail": None, "note": "x"}


def test_what_gave_way_is_stored_once_there_is_room(listing: Worker) -> None:
    session = listing.create(album=bytes(800_000))
    listing.save(session)
    session["thumbnail"] = bytes(400_000)
    listing.save(session)
    del session["album"]
    assert listing.save(session).status == "stored"
    assert read(listing, session.id) == {"thumbnail": bytes(400_000)}


def test_many_attributes_that_give_way_are_told_in_one_sentence(listing: Worker) -> None:
    told = events_of(listing)
    session = listing.create(**{f"part{i:03}": bytes(10_000 + i) for i in range(200)})
    listing.save(session)
    kept = [name for name, value in read(listing, session.id).items() if value is not None]
    assert kept == [f"part{i:03}" for i in range(len(kept))], "the largest go first"
    (event,) = told
    assert f"and {200 - len(kept) - 3} more" in event.detail
    assert len(event.detail) < 500


@pytest.mark.parametrize("policy", ["stop_application", "local_session", "blacklist"])
def test_a_limit_that_is_learned_while_a_session_is_saved_holds_for_the_next_attempt(
    driver: SimulatedDriver, make_worker: MakeWorker, policy: str
) -> None:
    worker = make_worker(on_unserializable=policy)
    session = worker.create(user="ada", blob=bytes(600_000))
    home = driver.nodes[home_of(session.id)]

    def meet(exchange: Exchange) -> None:
        driver.before_exchange = None
        home.fault = "refused"
        worker.ctx.item_limits.learn("n1", 1 << 19)
        worker.ctx.item_limits.learn("n2", 1 << 19)

    driver.before_exchange = meet
    if policy == "blacklist":
        assert save_in_cluster(worker, session).status == "stored"
        assert read(worker, session.id) == {"user": "ada", "blob": None}
    else:
        with pytest.raises(SessionTooLarge if policy == "stop_application" else StaysLocal):
            save_in_cluster(worker, session)


def test_names_that_alone_are_too_large_are_an_error_that_stops_nothing(listing: Worker) -> None:
    session = listing.create(**{f"{i}" + "x" * 60_000: None for i in range(20)})
    with pytest.raises(SessionTooLarge):
        listing.save(session)
    assert not listing.ctx.is_stopped


def test_a_merge_that_becomes_too_large_gives_way_with_its_own_part(listing: Worker, make_worker: MakeWorker) -> None:
    session_id = listing.store(a=0, b=0)
    mine, theirs = loaded(listing, session_id), loaded(make_worker(), session_id)
    mine["a"] = "x" * 600_000
    theirs["b"] = "x" * 600_000
    make_worker().save(theirs)
    assert listing.save(mine).status == "merged"
    assert read(listing, session_id) == {"a": None, "b": "x" * 600_000}
