"""The local store in a file while another process holds that file, as a backup, a shell or a stopped worker does."""

import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from msm_fast import AttributeMap, NearCacheSettings, SessionUnavailable
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.local_store import LocalRecord
from tests.simulation.clock import VirtualClock

PATIENCE_S = 0.1
LEFT_ALONE_S = 1.0

MakeStore = Callable[[], SqliteStore]
record = partial(LocalRecord, plain="0123")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sessions.db"


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def store(path: Path, clock: VirtualClock) -> Iterator[SqliteStore]:
    store = SqliteStore(str(path), NearCacheSettings(), clock.wall, clock.monotonic)
    yield store
    store.close()


@pytest.fixture
def other(path: Path, store: SqliteStore) -> Iterator[sqlite3.Connection]:
    """Another process's connection to the file: it has a transaction open that writes."""
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield other
    other.close()


def change(store: SqliteStore) -> float:
    """Try in vain to store something; return how long that took."""
    started = time.monotonic()
    with pytest.raises(SessionUnavailable, match="cannot be written: database is locked"):
        store.swap(b"key", 1, record(2, b"", 0), ttl_s=0)
    return time.monotonic() - started


def test_what_only_looks_does_not_wait_for_who_writes(store: SqliteStore, other: sqlite3.Connection) -> None:
    for _ in range(20):
        assert store.load(b"key") == record(1, b"data", 0)
        assert len(store) == 1
        assert store.all_keys() == [b"key"]


def test_only_the_first_to_write_waits_for_another_process_in_vain(
    store: SqliteStore, other: sqlite3.Connection, clock: VirtualClock
) -> None:
    assert change(store) >= PATIENCE_S
    assert sum(change(store) for _ in range(20)) < 10 * PATIENCE_S
    clock.advance(LEFT_ALONE_S)
    assert change(store) >= PATIENCE_S


def test_once_the_file_can_be_written_it_is_waited_for_again(store: SqliteStore, other: sqlite3.Connection) -> None:
    change(store)
    other.execute("ROLLBACK")
    assert store.swap(b"key", 1, record(2, b"", 0), ttl_s=0)
    other.execute("BEGIN IMMEDIATE")
    assert change(store) >= PATIENCE_S


def test_what_many_threads_cannot_write_keeps_none_of_them_longer_than_one(
    store: SqliteStore, other: sqlite3.Connection
) -> None:
    failures: list[SessionUnavailable] = []

    def write() -> None:
        try:
            store.swap(b"key", 1, record(2, b"", 0), ttl_s=0)
        except SessionUnavailable as error:
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(20)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert store.load(b"key") == record(1, b"data", 0)
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 10 * PATIENCE_S
    assert len(failures) == 20


def test_a_thread_that_uses_the_file_for_too_long_keeps_others_from_it_but_not_waiting(store: SqliteStore) -> None:
    is_using, may_end = threading.Event(), threading.Event()

    def use() -> None:
        with store._file.reading():
            is_using.set()
            may_end.wait(10)

    thread = threading.Thread(target=use)
    thread.start()
    assert is_using.wait(10)
    with pytest.raises(SessionUnavailable, match="other threads use it for too long"):
        store.load(b"key")
    may_end.set()
    thread.join()
    assert store.load(b"key") is None


def test_it_is_told_once_that_a_file_cannot_be_written_and_once_that_it_can_again(
    store: SqliteStore, other: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(3):
        change(store)
        store.load(b"key")
    other.execute("ROLLBACK")
    for n in (1, 2):
        store.swap(b"key", n, record(n + 1, b"", 0), ttl_s=0)
    assert [message.partition("sessions.db ")[2] for message in caplog.messages] == [
        "cannot be written: database is locked",
        "can be written again",
    ]


def test_while_the_file_is_held_what_is_there_outlives_that_something_else_is_deleted(
    store: SqliteStore, other: sqlite3.Connection
) -> None:
    store.delete(b"nothing")
    store.delete(b"nothing", 7)
    store.delete(b"key", 7)
    assert store.all_keys() == [b"key"]
    assert store.load(b"key") == record(1, b"data", 0)


def test_what_has_expired_is_taken_out_of_the_file(store: SqliteStore, path: Path, clock: VirtualClock) -> None:
    for i in range(50):
        assert store.swap(b"short %d" % i, 0, record(1, b"data", 0), ttl_s=10)
    clock.advance(11)
    for i in range(50):
        assert store.swap(b"long %d" % i, 0, record(1, b"data", 0), ttl_s=10)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM msm_fast_sessions").fetchone() == (50,)
    assert store.dropped == 0


def test_a_child_has_no_value_of_its_parents_that_could_not_be_encoded(store: SqliteStore) -> None:
    live = AttributeMap({"handle": object()})
    assert store.swap(b"key", 0, record(1, b"data", 0, "tagged", live=live), ttl_s=60)
    store.renew_after_fork()
    assert store.load(b"key") == record(1, b"data", 0, "tagged")


def test_a_child_does_not_close_what_its_parent_may_still_use(store: SqliteStore, path: Path) -> None:
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    store.renew_after_fork()
    assert path.with_name("sessions.db-wal").exists()  # who closes a file last takes that away
    assert store.load(b"key") == record(1, b"data", 0)


def test_a_file_that_is_taken_away_is_made_again_for_its_owner_alone(store: SqliteStore, path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    store.renew_after_fork()
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    assert {file.stat().st_mode & 0o077 for file in path.parent.iterdir()} == {0}


def test_a_file_that_others_can_write_by_now_is_not_opened_in_a_child(store: SqliteStore, path: Path) -> None:
    path.chmod(0o666)
    store.renew_after_fork()
    with pytest.raises(SessionUnavailable, match="nobody else can write"):
        store.load(b"key")


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_that_is_forked_in_the_middle_of_a_transaction_can_write_and_so_can_its_parent(
    path: Path, clock: VirtualClock
) -> None:
    is_inside = threading.Event()

    def linger() -> float:
        """Keep a transaction open for a while: whether a record has expired is looked at within it."""
        if threading.current_thread() is thread:
            is_inside.set()
            time.sleep(0.05)
        return clock.wall()

    store = SqliteStore(str(path), NearCacheSettings(), linger)
    thread = threading.Thread(target=store.swap, args=(b"thread", 0, record(1, b"", 0), 60))
    thread.start()
    assert is_inside.wait(5)
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            store.renew_after_fork()
            os._exit(0 if store.swap(b"child", 0, record(1, b"", 0), ttl_s=60) else 1)
        os._exit(2)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert store.swap(b"parent", 0, record(1, b"", 0), ttl_s=60)
    assert sorted(store.all_keys()) == [b"child", b"parent", b"thread"]
    store.close()


def test_two_stores_of_a_process_keep_others_from_taking_it_for_gone(store: SqliteStore, path: Path) -> None:
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    second = SqliteStore(str(path), NearCacheSettings())
    look = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA user_version'); db.close()"
    subprocess.run([sys.executable, "-c", look, path], check=True)
    assert path.with_name("sessions.db-wal").exists()  # who closes a file last takes that away
    second.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_leaves_no_lock_behind_wherever_it_comes(store: SqliteStore) -> None:
    class CtrlC(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise CtrlC

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(500):
            with contextlib.suppress(CtrlC):
                signal.setitimer(signal.ITIMER_REAL, 1e-6 * (n + 1))
                for _ in range(50):  # more than there is time for; but it may come where nothing can be raised
                    found = store.load(b"key")
                    generation = found.generation if found else 0
                    assert store.swap(b"key", generation, record(generation + 1, b"", 0), ttl_s=0)
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    with ThreadPoolExecutor(1) as other_thread:
        found = other_thread.submit(store.load, b"key").result()
        generation = found.generation if found else 0  # on a slow machine none may have been stored
        assert other_thread.submit(store.swap, b"key", generation, record(generation + 1, b"", 0), 0).result()


def test_a_closed_store_is_not_opened_again(store: SqliteStore) -> None:
    store.close()
    with pytest.raises(SessionUnavailable, match="closed"):
        store.load(b"key")


def test_a_file_that_is_deleted_while_it_is_open_is_made_again_and_all_go_on_in_that(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert store.load(b"key") is None
    for file in path.parent.iterdir():
        file.unlink()
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    assert store.load(b"key") == record(1, b"data", 0)
    for file in path.parent.iterdir():
        file.unlink()
    other = SqliteStore(str(path), NearCacheSettings())
    assert other.swap(b"key", 0, record(1, b"other", 0), ttl_s=0)
    assert store.load(b"key") == record(1, b"other", 0)
    assert not store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    assert "was deleted or replaced" in caplog.text
    other.close()


def test_a_relative_path_means_the_same_file_after_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with closing(SqliteStore("sessions.db", NearCacheSettings())) as store:
        assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
        monkeypatch.chdir("other")
        assert store.load(b"key") == record(1, b"data", 0)
        assert store.swap(b"key", 1, record(2, b"more", 0), ttl_s=0)


def test_of_values_that_cannot_be_encoded_the_process_keeps_as_many_as_of_sessions(path: Path) -> None:
    with contextlib.closing(SqliteStore(str(path), NearCacheSettings(max_sessions=2))) as store:
        for key in (b"one", b"two", b"three"):
            store.swap(key, 0, record(1, b"", 0, "tagged", live=AttributeMap({"handle": object()})), ttl_s=60)
        kept = [found.live is not None for key in (b"one", b"two", b"three") if (found := store.load(key))]
    assert kept == [False, True, True]


def test_a_file_that_is_deleted_with_its_folder_has_nothing_until_it_can_be_made_again(
    clock: VirtualClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    store = SqliteStore(str(folder / "sessions.db"), NearCacheSettings(), clock.wall, clock.monotonic)
    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    shutil.rmtree(folder)
    assert store.load(b"key") is None
    assert store.all_keys() == []
    assert len(store) == 0
    with pytest.raises(SessionUnavailable, match="cannot be written"):
        store.swap(b"key", 0, record(1, b"lost", 0), ttl_s=0)
    assert caplog.text.count("was deleted or replaced") == 1
    folder.mkdir()
    assert store.swap(b"key", 0, record(1, b"again", 0), ttl_s=0)
    assert store.load(b"key") == record(1, b"again", 0)
    store.close()
    with pytest.raises(SessionUnavailable, match="closed"):
        store.load(b"key")


@pytest.mark.parametrize("why", [PermissionError, NotADirectoryError])
def test_a_file_that_is_deleted_and_may_not_be_made_again_has_nothing(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, why: type[OSError]
) -> None:
    def refuse(*args: object) -> int:
        raise why

    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    path.unlink()
    monkeypatch.setattr(os, "open", refuse)
    assert store.load(b"key") is None
    assert store.all_keys() == []
    with pytest.raises(SessionUnavailable, match="cannot be written"):
        store.swap(b"key", 0, record(1, b"lost", 0), ttl_s=0)


def test_a_file_that_is_there_and_cannot_be_opened_is_not_taken_for_one_that_is_gone(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def have_no_descriptor(*args: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
    store.renew_after_fork()
    monkeypatch.setattr(os, "open", have_no_descriptor)
    with pytest.raises(SessionUnavailable, match="Too many open files"):
        store.load(b"key")


def test_a_file_that_is_damaged_is_put_aside_and_all_go_on_in_another_one(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(SqliteStore(str(path), NearCacheSettings())) as other:
        assert other.swap(b"key", 0, record(1, b"kept", 0), ttl_s=0)
        for file in (path, path.with_name("sessions.db-wal")):
            file.write_bytes(b"\xff" * file.stat().st_size)
        with pytest.raises(SessionUnavailable, match="cannot be read"):
            store.load(b"key")
        assert store.swap(b"key", 0, record(1, b"data", 0), ttl_s=0)
        assert other.load(b"key") == record(1, b"data", 0)
    assert caplog.text.count("is damaged") == 1
    assert set(path.with_name("sessions.db.damaged").read_bytes()) == {0xFF}


IN_ANOTHER_PROCESS = """
import sys
from msm_fast import NearCacheSettings
from msm_fast.drivers.sqlite_store import SqliteStore
from msm_fast.local_store import LocalRecord

store = SqliteStore(sys.argv[1], NearCacheSettings())
print("ready", flush=True)
for line in sys.stdin:
    for n in range(50):
        assert store.swap(f"{line} {n}".encode(), 0, LocalRecord(1, bytes(1500), 0, plain="0123"), 0)
    print(len(store.all_keys()), flush=True)
"""


@contextlib.contextmanager
def another_process(path: Path) -> Iterator[Callable[[str], int]]:
    """Lend what has another process store 50 sessions, and returns how many it can read then."""
    process = subprocess.Popen(
        [sys.executable, "-c", IN_ANOTHER_PROCESS, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        def store_50(name: str) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(name + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield store_50
        process.stdin.close()


@pytest.mark.parametrize("deleted", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_processes_lose_nothing_of_each_others_when_what_is_beside_the_file_is_deleted(
    path: Path, deleted: list[str]
) -> None:
    with another_process(path) as one:
        one("before")
        for suffix in deleted:
            path.with_name(path.name + suffix).unlink()
        assert one("after") == 100
        with another_process(path) as two:
            assert two("other") == 150
            assert one("again") == 200
            assert two("last") == 250


@pytest.mark.parametrize("deleted", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_two_processes_lose_nothing_of_each_others_when_what_is_beside_the_file_is_deleted(
    path: Path, deleted: list[str]
) -> None:
    with another_process(path) as one, another_process(path) as two:
        one("before")
        assert two("too") == 100
        for suffix in deleted:
            path.with_name(path.name + suffix).unlink()
        assert one("after") == 150
        assert two("again") == 200
        assert one("last") == 250


def test_they_lose_nothing_when_one_notices_only_after_another_has_ended(path: Path) -> None:
    with another_process(path) as one:
        one("before")
        path.with_name(path.name + "-shm").unlink()
        with another_process(path) as two:
            assert two("other") == 100
        assert one("again") == 150
    with another_process(path) as three:
        assert three("last") == 200


@pytest.mark.parametrize("ends", [SqliteStore.close, lambda _: fork_and_wait()], ids=["its end", "a fork"])
def test_they_lose_nothing_when_one_notices_only_as_it_closes_the_file(
    path: Path, store: SqliteStore, ends: Callable[[SqliteStore], None]
) -> None:
    assert store.swap(b"before", 0, record(1, b"data", 0), ttl_s=0)
    path.with_name(path.name + "-shm").unlink()
    with another_process(path) as other:
        assert other("other") == 51
    ends(store)
    with another_process(path) as last:
        assert last("last") == 101


def fork_and_wait() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
