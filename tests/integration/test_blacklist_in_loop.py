"""A black list in a file, whose file system hangs, and an event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from msm_fast import AsyncSessionManager
from msm_fast import blacklist as blacklist_module
from msm_fast.blacklist import Blacklist
from tests.integration.conftest import Nodes
from tests.timeouts import UNHURRIED

pytestmark = pytest.mark.memcached


class Unserializable:
    """No serializer knows it."""


ENTRY = ("handle", f"{__name__}.Unserializable")


class Disk:
    """Where the file is: while it hangs, whoever uses the file waits. users: the threads that did."""

    def __init__(self) -> None:
        self.answers = threading.Event()
        self.answers.set()
        self.users: list[threading.Thread] = []

    def use(self) -> None:
        self.users.append(threading.current_thread())
        assert self.answers.wait(10)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    file_class = blacklist_module._BlacklistFile
    for name in ("stamp", "read", "change"):
        method = getattr(file_class, name)

        def use(self: Any, *args: Any, method: Any = method) -> Any:
            disk.use()
            return method(self, *args)

        monkeypatch.setattr(file_class, name, use)
    yield disk
    disk.answers.set()


def manager_of(nodes: Nodes, path: Path) -> AsyncSessionManager:
    text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
    settings: dict[str, Any] = {"on_unserializable": "blacklist", "blacklist_path": str(path)}
    return AsyncSessionManager(text, timeouts=UNHURRIED, **settings)


async def put(manager: AsyncSessionManager, **attributes: object) -> None:
    async with manager.request(None, "POST") as session:
        session.update(attributes)


def test_a_file_that_hangs_holds_up_no_request_and_is_written_before_the_end(
    nodes: Nodes, disk: Disk, tmp_path: Path
) -> None:
    path = tmp_path / "black.json"

    async def test() -> None:
        async with manager_of(nodes, path) as manager:
            disk.users.clear()
            disk.answers.clear()
            for _ in range(3):
                await put(manager, handle=Unserializable(), user="ada")
            assert ENTRY in manager.blacklist
            assert manager.statistics().blacklisted == 1
            assert not path.exists()
            asyncio.get_running_loop().call_later(0.05, disk.answers.set)

    asyncio.run(test())
    assert disk.users
    assert threading.current_thread() not in disk.users
    assert list(Blacklist(str(path))) == [ENTRY]


def test_what_another_process_changes_is_seen_without_waiting_for_the_file(
    nodes: Nodes, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "black.json"

    async def test() -> None:
        async with manager_of(nodes, path) as manager:
            Blacklist(str(path)).add(*ENTRY)
            monkeypatch.setattr(manager.blacklist, "_look_again_at", 0.0)
            disk.users.clear()
            disk.answers.clear()
            await put(manager, user="ada")
            assert ENTRY not in manager.blacklist
            disk.answers.set()
            for _ in range(5_000):
                if ENTRY in manager.blacklist:
                    break
                await asyncio.sleep(0.001)
            assert ENTRY in manager.blacklist
            assert threading.current_thread() not in disk.users

    asyncio.run(test())


def test_who_takes_something_off_waits_for_the_file(nodes: Nodes, tmp_path: Path) -> None:
    path = tmp_path / "black.json"

    async def test() -> None:
        async with manager_of(nodes, path) as manager:
            Blacklist(str(path)).add(*ENTRY)
            assert await asyncio.to_thread(manager.blacklist.remove, *ENTRY)
            assert list(Blacklist(str(path))) == []

    asyncio.run(test())
