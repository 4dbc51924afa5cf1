"""Both local stores: in memory, and in a file that processes share."""

import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from msm_fast import ConfigurationError, NearCacheSettings, SessionUnavailable, local_store
from msm_fast._core.attributes import AttributeMap
from msm_fast.drivers import sqlite_store
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.local_store import LocalRecord, LocalStore, MemoryStore
from tests.simulation.clock import VirtualClock

NOBODY = 65534

MakeStore = Callable[..., LocalStore]
record = partial(LocalRecord, plain="0123")


def owned_by(owner: int, look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
    """Return look, but for what it says of the owner."""

    def look_at_another(path: str, **how: bool) -> os.stat_result:
        values = list(look(path, **how))
        values[stat.ST_UID] = owner
        return os.stat_result(values)

    return look_at_another


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture(params=["memory", "sqlite"])
def make_store(request: pytest.FixtureRequest, clock: VirtualClock, tmp_path: Path) -> Iterator[MakeStore]:
    stores: list[LocalStore] = []

    def make(max_sessions: int = 100, max_bytes: int = 1 << 20) -> LocalStore:
        bounds = NearCacheSettings(max_sessions=max_sessions, max_bytes=max_bytes)
        is_memory = request.param == "memory"
        path = str(tmp_path / "sessions.db")
        stores.append(MemoryStore(bounds, clock.monotonic) if is_memory else SqliteStore(path, bounds, clock.wall))
        return stores[-1]

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(make_store: MakeStore) -> LocalStore:
    return make_store()


def test_a_record_is_found_as_it_was_stored(store: LocalStore) -> None:
    stored = LocalRecord(3, b"data", 1234, "provisional", b"base", plain="0123")
    assert store.swap(b"key", 0, stored, ttl_s=60)
    assert store.load(b"key") == stored
    assert store.load(b"other") is None
    assert len(store) == 1
    assert store.all_keys() == [b"key"]


def test_only_one_of_two_that_swap_the_same_generation_wins(store: LocalStore) -> None:
    assert store.swap(b"key", 0, record(1, b"a", 0), ttl_s=60)
    assert not store.swap(b"key", 0, record(1, b"b", 0), ttl_s=60)
    assert store.swap(b"key", 1, record(2, b"c", 0), ttl_s=60)
    assert not store.swap(b"key", 1, record(2, b"d", 0), ttl_s=60)
    found = store.load(b"key")
    assert found is not None
    assert found.data == b"c"


def test_a_record_is_gone_when_its_time_is_over_and_a_touch_extends_it(store: LocalStore, clock: VirtualClock) -> None:
    for key in (b"left", b"touched", b"unlimited"):
        store.swap(key, 0, record(1, b"data", 0), ttl_s=0 if key == b"unlimited" else 60)
    clock.advance(50)
    store.touch(b"touched", 60, accessed_ms=50_000)
    store.touch(b"nothing", 60, accessed_ms=50_000)
    clock.advance(20)
    assert store.load(b"left") is None
    found = store.load(b"touched")
    assert found is not None
    assert found.accessed_ms == 50_000
    assert sorted(store.all_keys()) == [b"touched", b"unlimited"]


def test_a_delete_may_be_bound_to_a_generation(store: LocalStore) -> None:
    store.swap(b"key", 0, record(2, b"data", 0), ttl_s=60)
    store.delete(b"key", 1)
    assert store.load(b"key") is not None
    store.delete(b"key", 2)
    assert store.load(b"key") is None
    store.delete(b"key")
    assert len(store) == 0


@pytest.mark.parametrize("bounds", [{"max_sessions": 200}, {"max_bytes": 200 * 1000}])
def test_the_least_recently_used_go_first_when_there_is_no_room(
    make_store: MakeStore, clock: VirtualClock, bounds: dict[str, int]
) -> None:
    store = make_store(**{"max_sessions": 10_000, **bounds})
    for i in range(400):
        clock.advance(1)
        store.swap(b"%d" % i, 0, record(1, bytes(1000), int(clock.elapsed * 1000)), ttl_s=0)
    kept = {int(key) for key in store.all_keys()}
    assert len(kept) <= 201
    assert store.dropped == 400 - len(kept)
    assert min(kept) == 400 - len(kept)


@pytest.mark.parametrize("bounds", [{"max_sessions": 100}, {"max_bytes": 1000}])
def test_what_says_that_a_session_has_ended_gives_way_to_none_that_lives(
    make_store: MakeStore, clock: VirtualClock, bounds: dict[str, int]
) -> None:
    store = make_store(**bounds)
    store.swap(b"ended", 0, record(1, bytes(100), 0, "ended"), ttl_s=0)
    for i in range(400):
        clock.advance(1)
        store.swap(b"%d" % i, 0, record(1, bytes(100), int(clock.elapsed * 1000)), ttl_s=0)
    assert b"ended" in store.all_keys()
    assert store.load(b"ended") == record(1, bytes(100), 0, "ended")
    assert len(store.all_keys()) <= 102
    assert store.dropped == 401 - len(store.all_keys())
    store.delete(b"ended")
    assert store.load(b"ended") is None


def test_of_what_says_that_a_session_has_ended_the_oldest_goes_when_there_is_no_room(
    make_store: MakeStore, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (local_store, sqlite_store):
        monkeypatch.setattr(module, "ENDED_BOUNDS", NearCacheSettings(max_sessions=100))
    store = make_store()
    store.swap(b"living", 0, record(1, b"data", 0), ttl_s=0)
    for i in range(400):
        clock.advance(1)
        store.swap(b"%d" % i, 0, record(1, b"", int(clock.elapsed * 1000), "ended"), ttl_s=0)
    kept = store.all_keys()
    assert 100 <= len(kept) <= 202
    assert store.dropped == 401 - len(kept)
    assert b"0" not in kept
    assert {b"living", b"399"} <= set(kept)


def test_a_record_in_memory_is_found_while_it_is_replaced_by_those_who_do_not_wait_for_that() -> None:
    seen: list[LocalRecord | None] = []

    def look() -> float:
        """Look as another thread may wherever the store asks what time it is."""
        if is_replacing:
            is_replacing.pop()
            seen.append(store.load(b"key"))
            is_replacing.append(True)
        return 0.0

    is_replacing: list[bool] = []
    store = MemoryStore(NearCacheSettings(), look)
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=60)
    is_replacing.append(True)
    assert store.swap(b"key", 1, record(2, b"data", 0), ttl_s=60)
    assert store.swap(b"key", 2, record(3, b"data", 0, "ended"), ttl_s=60)
    assert seen
    assert None not in seen


def test_a_value_that_cannot_be_encoded_is_kept_beside_its_record(store: LocalStore) -> None:
    attributes = AttributeMap({"lock": object()})
    store.swap(b"key", 0, record(1, b"", 0, "tagged", live=attributes), ttl_s=60)
    found = store.load(b"key")
    assert found is not None
    assert found.live is attributes
    store.swap(b"key", 1, record(2, b"", 0), ttl_s=60)
    found = store.load(b"key")
    assert found is not None
    assert found.live is None


def test_processes_share_the_file_and_nobody_else_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    one, two = SqliteStore(str(path), NearCacheSettings()), SqliteStore(str(path), NearCacheSettings())
    one.swap(b"key", 0, record(1, b"data", 0), ttl_s=60)
    found = two.load(b"key")
    assert found is not None
    assert found.data == b"data"
    assert {file.stat().st_mode & 0o077 for file in tmp_path.iterdir()} == {0}
    one.close()
    two.close()


def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "letter.txt"
    path.write_text("Dear Ada, this is not a database. " * 20)
    with pytest.raises(ConfigurationError, match="a file that SQLite can open"):
        SqliteStore(str(path), NearCacheSettings())
    assert path.read_text().startswith("Dear Ada")
    with pytest.raises(ConfigurationError):
        SqliteStore(str(tmp_path / "no" / "such" / "folder"), NearCacheSettings())


def test_a_file_that_root_has_made_for_itself_is_refused_with_its_owner() -> None:
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "sessions.db")
        path.touch(0o400)
        try:
            if user == 0:
                os.seteuid(NOBODY)
            with pytest.raises(ConfigurationError, match=f"can read and write: it belongs to user {user}"):
                SqliteStore(str(path), NearCacheSettings())
        finally:
            os.seteuid(user)


@pytest.mark.parametrize("mode", [0o666, 0o602, 0o620])
def test_a_file_that_others_can_write_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "sessions.db"
    path.touch()
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=r"local_store=.*nobody else can write"):
        SqliteStore(str(path), NearCacheSettings())
    assert path.read_bytes() == b""
    path.chmod(0o600)
    SqliteStore(str(path), NearCacheSettings()).close()


@pytest.mark.parametrize(("owner", "user", "is_taken"), [(7, 7, True), (0, 7, True), (8, 7, False), (8, 0, True)])
def test_a_file_is_ours_or_that_of_root_or_we_are_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: int, user: int, is_taken: bool
) -> None:
    monkeypatch.setattr("os.stat", owned_by(owner, os.stat))
    monkeypatch.setattr("os.geteuid", lambda: user)
    path = str(tmp_path / "sessions.db")
    if is_taken:
        SqliteStore(path, NearCacheSettings()).close()
    else:
        with pytest.raises(ConfigurationError, match=r"belongs to this user"):
            SqliteStore(path, NearCacheSettings())


@pytest.mark.parametrize("beside", ["-wal", "-shm", "-journal"])
@pytest.mark.parametrize(
    ("owner", "mode", "is_taken"), [(7, 0o600, True), (0, 0o600, True), (8, 0o600, False), (7, 0o666, False)]
)
def test_so_is_each_file_that_sqlite_takes_for_a_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str, owner: int, mode: int, is_taken: bool
) -> None:
    """In /tmp any user may put one there, which SQLite would read into the file."""
    path = str(tmp_path / "sessions.db")
    SqliteStore(path, NearCacheSettings()).close()
    Path(path + beside).touch()
    Path(path + beside).chmod(mode)
    monkeypatch.setattr("os.stat", owned_by(7, os.stat))
    monkeypatch.setattr("os.lstat", owned_by(owner, os.lstat))
    monkeypatch.setattr("os.geteuid", lambda: 7)
    if is_taken:
        SqliteStore(path, NearCacheSettings()).close()
    else:
        with pytest.raises(ConfigurationError, match=f"sessions.db{beside}.*nobody else can write"):
            SqliteStore(path, NearCacheSettings())


def test_a_new_file_is_waited_for_while_another_process_that_starts_at_once_lays_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sessions.db"
    path.touch()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        pauses = iter(range(20))

        def pause(_: float) -> None:
            if next(pauses) == 10:
                other.execute("COMMIT")

        monkeypatch.setattr("msm_fast.drivers.sqlite_file.time.sleep", pause)
        with closing(SqliteStore(str(path), NearCacheSettings())) as store:
            assert len(store) == 0


def test_a_file_that_is_held_by_another_too_long_is_said_to_be_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = SqliteStore(str(path), NearCacheSettings())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SessionUnavailable, match="the local store"):
        store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    other.execute("ROLLBACK")
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    other.close()
    store.close()


def test_a_file_that_cannot_be_opened_after_a_fork_since_another_holds_it_is_opened_later(tmp_path: Path) -> None:
    path = tmp_path / "sessions.db"
    store = SqliteStore(str(path), NearCacheSettings())
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    store._file.close_before_fork()
    store._file.go_on()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SessionUnavailable, match="locked"):
        store.load(b"key")
    other.close()
    assert store.load(b"key") == record(1, b"data", 0)
    store.close()
