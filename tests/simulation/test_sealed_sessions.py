"""Sessions whose records are signed or encrypted: what is trusted, what is left alone, how secrets are changed."""

import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msm_fast import CorruptRecord, Event, UnknownFormat
from msm_fast._core.record import encode_record
from tests.reference.record import encode_frame
from tests.simulation.driver import SimulatedDriver
from tests.simulation.test_falling_back import LOCAL, change, heal, lose
from tests.simulation.test_loading import holders, key_of
from tests.simulation.test_saving import loaded, read
from tests.simulation.test_serialization import ONE_MIB
from tests.simulation.worker import Worker

MakeWorker = Callable[..., Worker]
OLD, NEW = "an old secret of some length", "a new secret of some length"
SIGNED: dict[str, Any] = {"secrets": NEW}
ENCRYPTED: dict[str, Any] = {"secrets": NEW, "encrypt": True}
MODES = pytest.mark.parametrize("settings", [SIGNED, ENCRYPTED], ids=["signed", "encrypted"])


def items_of(driver: SimulatedDriver, session_id: str) -> list[bytes]:
    items = [node.server.peek(key_of(session_id)) for node in driver.nodes.values()]
    return [item.value for item in items if item is not None]


def replace_all(driver: SimulatedDriver, session_id: str, value: bytes) -> None:
    for node in holders(driver, session_id):
        item = driver.nodes[node].server.peek(key_of(session_id))
        assert item is not None
        item.value = value


@MODES
def test_another_worker_with_the_secret_finds_the_session_and_all_copies_are_the_same_bytes(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    session_id = make_worker(**settings).store(user="ada", cart=["apple"])
    assert read(make_worker(**settings), session_id) == {"user": "ada", "cart": ["apple"]}
    items = items_of(driver, session_id)
    assert len(items) == 2
    assert len(set(items)) == 1
    assert (b"apple" in items[0]) == (settings is SIGNED)


@MODES
def test_it_is_merged_validated_and_ended_as_any_other(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    one, two = make_worker(**settings), make_worker(**settings)
    session_id = one.store(a=0, b=0)
    mine, theirs = loaded(one, session_id), loaded(two, session_id)
    mine["a"], theirs["b"] = 1, 2
    two.save(theirs)
    assert one.save(mine).status == "merged"
    assert read(two, session_id) == {"a": 1, "b": 2}
    session = loaded(two, session_id)
    session.invalidate()
    two.save(session)
    assert one.load(session_id) is None


@MODES
def test_a_forged_record_is_corrupt_and_no_pickle_in_it_is_run(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any], tmp_path: Path
) -> None:
    worker = make_worker(**settings, serializer=("native", "pickle"))
    session_id = worker.store(user="ada")
    target = tmp_path / "run"

    class Bomb:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(target),)

    body = encode_frame("user", 2, pickle.dumps(Bomb()))
    forged = encode_record(key_of(session_id), body, generation=99, created_ms=0, accessed_ms=0, lineage=(1,))
    replace_all(driver, session_id, forged)
    with pytest.raises(CorruptRecord):
        read(make_worker(**settings, serializer=("native", "pickle")), session_id)
    assert not target.exists()


@MODES
def test_pickle_may_be_used_with_secrets(make_worker: MakeWorker, settings: dict[str, Any]) -> None:
    both = {**settings, "serializer": ("native", "pickle")}
    session_id = make_worker(**both).store(point=Path("a/b"))
    assert read(make_worker(**both), session_id) == {"point": Path("a/b")}


@MODES
def test_without_the_secret_a_session_is_left_alone(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    session_id = make_worker(**settings).store(user="ada")
    before = items_of(driver, session_id)
    for others in ({}, {"secrets": OLD}):
        with pytest.raises(UnknownFormat):
            make_worker(**others).load(session_id)
    assert items_of(driver, session_id) == before
    assert read(make_worker(**settings), session_id) == {"user": "ada"}


def test_that_secrets_are_missing_is_told_of_each_node_once_a_minute(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker(**SIGNED).store(user="ada")
    worker = make_worker(secrets=OLD, on_corrupt="local")
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    for _ in range(3):
        assert read(worker, session_id) == {}
    told = [event for event in events if event.kind == "unreadable"]
    assert sorted(event.node or "" for event in told) == sorted(holders(driver, session_id))
    assert all("none of the configured secrets" in event.detail for event in told)
    driver.clock.advance(61)
    loaded(worker, session_id)
    assert len([event for event in events if event.kind == "unreadable"]) == 4


def test_that_what_nobody_signed_is_not_trusted_is_told_of_each_node_once_a_minute(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker().store(user="ada")
    worker = make_worker(**SIGNED, on_corrupt="local")
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    for _ in range(3):
        assert worker.load(session_id) is None
    assert sorted(event.node or "" for event in events if event.kind == "corrupt") == sorted(
        holders(driver, session_id)
    )
    assert worker.ctx.counters.snapshot().corrupt == 6
    driver.clock.advance(61)
    assert worker.load(session_id) is None
    assert len([event for event in events if event.kind == "corrupt"]) == 4


@MODES
def test_secrets_are_changed_without_losing_a_session(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    """The new secret is first given to all workers to read with, then to write with; then the old one goes."""
    before = make_worker(**{**settings, "secrets": OLD})
    reading = make_worker(**{**settings, "secrets": (OLD, NEW)})
    writing = make_worker(**{**settings, "secrets": (NEW, OLD)})
    after = make_worker(**{**settings, "secrets": NEW})
    session_id = before.store(user="ada")
    assert read(writing, session_id) == {"user": "ada"}
    session = loaded(writing, session_id)
    assert writing.save(session).status == "stored"  # only read, and yet written: with the new secret
    assert writing.save(loaded(writing, session_id)).status == "unchanged"
    assert read(reading, session_id) == {"user": "ada"}
    assert read(after, session_id) == {"user": "ada"}
    with pytest.raises(UnknownFormat):
        before.load(session_id)


def test_a_session_that_was_signed_is_encrypted_by_its_next_request(
    driver: SimulatedDriver, make_worker: MakeWorker
) -> None:
    session_id = make_worker(**SIGNED).store(user="ada")
    worker = make_worker(**ENCRYPTED)
    assert worker.save(loaded(worker, session_id)).status == "stored"
    assert all(b"ada" not in item for item in items_of(driver, session_id))


@MODES
def test_what_is_kept_on_this_host_in_an_outage_is_sealed_too(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    worker = make_worker(**settings, **LOCAL)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    change(worker, session_id, cart=["pear"])
    assert read(worker, session_id) == {"user": "ada", "cart": ["pear"]}
    kept = worker.ctx.local.load(key_of(session_id))
    assert kept is not None
    for data in (kept.data, kept.base):
        assert data[5] in (8, 16)
        assert (b"ada" in data) == (settings is SIGNED)


@pytest.mark.parametrize(
    ("is_forged", "kind", "n_corrupt"), [(False, "unreadable", 0), (True, "corrupt", 3)], ids=["of another", "forged"]
)
def test_what_the_local_store_has_and_nobody_here_can_read_is_told_once_a_minute_as_of_a_node(
    driver: SimulatedDriver, make_worker: MakeWorker, is_forged: bool, kind: str, n_corrupt: int
) -> None:
    worker = make_worker(**SIGNED, **LOCAL)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    change(worker, session_id, cart=["pear"])
    kept = worker.ctx.local.load(key_of(session_id))
    assert kept is not None
    if is_forged:
        forged = replace(kept, data=kept.data[:-1] + bytes([kept.data[-1] ^ 1]))
        worker.ctx.local.swap(key_of(session_id), kept.generation, forged, 0)
    else:
        worker.ctx.records = make_worker(secrets=OLD).ctx.records
    events: list[Event] = []
    worker.ctx.events.subscribe(events.append)
    for _ in range(3):
        assert dict(worker.load(session_id) or {}) == {}
    assert [event.kind for event in events] == [kind]
    assert worker.ctx.counters.snapshot().corrupt == n_corrupt
    driver.clock.advance(61)
    worker.load(session_id)
    assert [event.kind for event in events] == [kind] * 2


@MODES
def test_a_session_that_was_ended_here_is_ended_also_if_its_record_cannot_be_read_any_more(
    driver: SimulatedDriver, make_worker: MakeWorker, settings: dict[str, Any]
) -> None:
    worker = make_worker(**settings, **LOCAL)
    session_id = worker.store(user="ada")
    lose(driver, worker)
    session = loaded(worker, session_id)
    session.invalidate()
    worker.save(session)
    worker.ctx.records = make_worker(secrets=OLD).ctx.records
    heal(driver, worker)
    assert len(worker.ctx.local) == 0
    with pytest.raises(UnknownFormat):  # its tombstone is there, written with the other secret
        make_worker(**settings).load(session_id)


@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_a_session_over_the_item_limit_is_stored_if_it_is_not_over_it_when_compressed(
    driver: SimulatedDriver, make_worker: MakeWorker, compression: str
) -> None:
    worker = make_worker(compress_over=1000, compression=compression)
    session_id = worker.store(text="all work and no play " * (ONE_MIB // 10))
    assert max(map(len, items_of(driver, session_id))) < ONE_MIB / 10
    assert len(read(make_worker(), session_id)["text"]) == 21 * (ONE_MIB // 10)


def test_only_as_many_attributes_are_nulled_as_do_not_fit_when_compressed(make_worker: MakeWorker) -> None:
    worker = make_worker(compress_over=1000, on_unserializable="blacklist")
    blobs = {f"blob{i}": os.urandom(400_000 + i) for i in range(4)}
    session_id = worker.store(text="all work and no play " * (ONE_MIB // 20), **blobs)
    found = read(make_worker(), session_id)
    assert [name for name, value in found.items() if value is None] == ["text", "blob2", "blob3"]


@pytest.mark.parametrize("policy", ["local_session", "blacklist"])
def test_a_session_that_no_reader_would_expand_is_too_large_however_small_it_would_get(
    driver: SimulatedDriver, make_worker: MakeWorker, policy: str
) -> None:
    worker = make_worker(compress_over=1000, on_unserializable=policy)
    session_id = worker.store(text=" " * (7 * ONE_MIB))
    assert change(worker, session_id, more=" " * (2 * ONE_MIB)) == ("stored" if policy == "blacklist" else "local")
    kept = {name: value and len(value) // ONE_MIB for name, value in read(worker, session_id).items()}
    assert kept == {"text": 7, "more": None if policy == "blacklist" else 2}
    in_cluster = read(make_worker(), session_id)
    assert len(in_cluster["text"]) == 7 * ONE_MIB
    assert in_cluster.get("more") is None


def test_what_is_kept_near_counts_with_its_size_in_memory(make_worker: MakeWorker) -> None:
    worker = make_worker(compress_over=1000)
    session_id = worker.store(text="a" * 100_000)
    assert worker.ctx.essentials.near_bytes > 100_000
    other = make_worker()
    read(other, session_id)
    assert other.ctx.essentials.near_bytes > 100_000
