import json
import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from msm_fast import ConfigurationError
from msm_fast import blacklist as blacklist_module
from msm_fast.blacklist import Blacklist

HANDLE = ("handle", "shop.Handle")
OTHER = ("other", "shop.Other")


class Process:
    """A process with its own view of the file, its own clock, and what it complained of."""

    def __init__(self, path: Path) -> None:
        self.now = 0.0
        self.complaints: list[str] = []
        self.list = Blacklist(str(path), self.complaints.append, clock=lambda: self.now)

    def later(self) -> Blacklist:
        self.now += 5.0
        return self.list


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "black.json"


# -- what it holds


def test_it_is_a_set_of_names_and_types() -> None:
    entries = Blacklist()
    assert entries.add(*HANDLE)
    assert not entries.add(*HANDLE)
    assert entries.add("handle", "shop.Later")
    assert entries.add(*OTHER)
    assert HANDLE in entries
    assert ("handle", "shop.Other") not in entries
    assert "handle" not in entries
    assert list(entries) == [HANDLE, ("handle", "shop.Later"), OTHER]
    assert len(entries) == 3
    assert entries.types_by_name() == {"handle": {"shop.Handle", "shop.Later"}, "other": {"shop.Other"}}


def test_what_was_put_on_it_can_be_taken_off() -> None:
    entries = Blacklist()
    entries.add(*HANDLE)
    entries.add(*OTHER)
    assert entries.remove(*HANDLE)
    assert not entries.remove(*HANDLE)
    assert list(entries) == [OTHER]
    entries.clear()
    assert len(entries) == 0
    assert entries.types_by_name() == {}


def test_it_takes_no_more_than_its_bound(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(blacklist_module, "_MOST", 2)
    entries = Blacklist(str(path))
    assert [entries.add(f"a{i}", "shop.Handle") for i in range(4)] == [True, True, False, False]
    assert len(entries) == len(Blacklist(str(path))) == 2
    entries.remove("a0", "shop.Handle")
    assert entries.add("a3", "shop.Handle")


def test_only_text_goes_on_it() -> None:
    with pytest.raises(TypeError, match="two str"):
        Blacklist().add("handle", object)  # type: ignore[arg-type]


# -- the file


def test_it_is_found_again_after_a_restart(path: Path) -> None:
    entries = Blacklist(str(path))
    assert not path.exists(), "an empty list needs no file"
    entries.add(*HANDLE)
    entries.add("Zoë \ud800\n", "shop.Other")
    assert list(Blacklist(str(path))) == [HANDLE, ("Zoë \ud800\n", "shop.Other")]
    entries.remove(*HANDLE)
    assert HANDLE not in Blacklist(str(path))
    entries.clear()
    assert list(Blacklist(str(path))) == []


def test_the_file_is_there_as_a_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(path)
    process.list.add(*HANDLE)
    before = path.read_bytes()

    def fail(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert process.list.add(*OTHER)
    assert path.read_bytes() == before
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["black.json", "black.json.lock"]


def test_what_cannot_be_saved_holds_all_the_same_and_is_saved_with_the_next_change(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _refuse)
        assert process.list.add(*HANDLE)
        assert not process.list.add(*HANDLE)
    assert HANDLE in process.list
    (complaint,) = process.complaints
    assert str(path) in complaint
    assert "no space" in complaint
    assert list(process.later()) == [HANDLE]
    process.list.add(*OTHER)
    assert list(Blacklist(str(path))) == [HANDLE, OTHER]
    assert len(process.complaints) == 1


def _refuse(*arguments: object) -> None:
    raise OSError("no space left on device")


def test_what_was_taken_off_and_could_not_be_saved_does_not_come_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = Process(path)
    process.list.add(*HANDLE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", _refuse)
        process.list.clear()
    Process(path).list.add(*OTHER)
    assert list(process.later()) == [OTHER]
    process.list.add("third", "shop.Third")
    assert list(Blacklist(str(path))) == [OTHER, ("third", "shop.Third")]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "not json",
        "[]",
        '{"entries": []}',
        '{"msm_fast_blacklist": 2, "entries": []}',
        '{"msm_fast_blacklist": 1}',
        '{"msm_fast_blacklist": 1, "entries": ["handle"]}',
        '{"msm_fast_blacklist": 1, "entries": [{"attribute": "handle", "type": 1}]}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_a_file_that_is_no_black_list_is_refused_by_its_name_and_left_as_it_is(path: Path, text: str) -> None:
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigurationError, match=r"black\.json") as caught:
        Blacklist(str(path))
    assert caught.value.setting == "blacklist_path"
    assert path.read_text(encoding="latin-1") == text


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="folder"):
        Blacklist(str(tmp_path / "none" / "black.json"))
    with pytest.raises(ConfigurationError, match="folder"):
        Blacklist(str(tmp_path))


def test_a_file_that_breaks_later_is_told_and_never_written_over(path: Path) -> None:
    process = Process(path)
    process.list.add(*HANDLE)
    path.write_text("broken")
    assert list(process.later()) == [HANDLE]
    assert list(process.later()) == [HANDLE]
    assert len(process.complaints) == 1, "told once, not at every look"
    assert process.list.add(*OTHER)
    assert len(process.complaints) == 2
    assert path.read_text() == "broken"
    path.unlink()
    assert list(process.later()) == [OTHER], "deleting it clears the list of what was saved in it"


def test_the_file_keeps_the_rights_it_was_given(path: Path) -> None:
    entries = Blacklist(str(path))
    entries.add(*HANDLE)
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o640)
    entries.add(*OTHER)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_link_stays_a_link(tmp_path: Path, path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(path)
    Blacklist(str(link)).add(*HANDLE)
    assert link.is_symlink()
    assert HANDLE in Blacklist(str(path))


# -- several processes


def test_two_processes_lose_nothing_of_each_others(path: Path) -> None:
    one, two = Process(path), Process(path)
    assert one.list.add(*HANDLE)
    assert two.list.add(*OTHER)
    assert list(Blacklist(str(path))) == [HANDLE, OTHER]
    assert list(two.list) == [HANDLE, OTHER]


def test_what_another_process_has_put_on_it_is_no_news(path: Path) -> None:
    one, two = Process(path), Process(path)
    one.list.add(*HANDLE)
    assert not two.list.add(*HANDLE)


def test_what_another_process_changes_is_seen_within_seconds(path: Path) -> None:
    one, two = Process(path), Process(path)
    one.list.add(*HANDLE)
    assert HANDLE not in two.list
    assert HANDLE in two.later()
    assert two.list.types_by_name() == {"handle": {"shop.Handle"}}
    one.list.clear()
    assert HANDLE not in two.later()
    two.list.add(*OTHER)
    assert list(one.later()) == [OTHER], "nothing that was cleared comes back"


def test_one_process_can_clear_at_once_what_another_has_just_added(path: Path) -> None:
    one, two = Process(path), Process(path)
    one.list.add(*HANDLE)
    assert two.list.remove(*HANDLE)
    one.list.add(*OTHER)
    two.list.clear()
    assert list(Blacklist(str(path))) == []


def test_a_look_at_a_file_that_did_not_change_reads_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = Process(path)
    process.list.add(*HANDLE)
    monkeypatch.setattr(json, "load", _refuse)
    assert HANDLE in process.later()
    assert process.complaints == []


def test_a_process_that_holds_the_lock_and_hangs_delays_nobody_for_long(path: Path) -> None:
    process = Process(path)
    file = blacklist_module._BlacklistFile(str(path))
    with file._locked():
        assert process.list.add(*HANDLE)
    assert HANDLE in process.list
    assert "black.json.lock" in process.complaints[0]
    assert not path.exists()


def _add_many(path: str, prefix: str) -> None:
    blacklist_module._LOCK_WAIT_S = 60  # a busy machine is no fault here
    entries = Blacklist(path)
    for i in range(20):
        assert entries.add(f"{prefix}{i}", "shop.Handle")


def test_processes_that_add_at_once_lose_nothing(path: Path) -> None:
    spawning = multiprocessing.get_context("spawn")
    processes = [spawning.Process(target=_add_many, args=(str(path), prefix)) for prefix in "abc"]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(Blacklist(str(path))) == 60


def test_threads_that_add_and_read_at_once_lose_nothing(path: Path) -> None:
    entries = Blacklist(str(path))

    def add(prefix: str) -> None:
        for i in range(20):
            entries.add(f"{prefix}{i}", "shop.Handle")
            assert (f"{prefix}{i}", "shop.Handle") in entries

    _run_all([lambda prefix=prefix: add(prefix) for prefix in "abcd"])
    assert len(entries) == len(Blacklist(str(path))) == 80


def _run_all(jobs: list[Callable[[], None]]) -> None:
    threads = [threading.Thread(target=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_a_forked_child_gets_a_lock_of_its_own(path: Path) -> None:
    entries = Blacklist(str(path))
    entries._lock.acquire()  # as a thread of the parent may have at the fork
    entries.renew_lock()
    assert entries.add(*HANDLE)
