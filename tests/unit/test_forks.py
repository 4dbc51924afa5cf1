"""What managers do in a forked child, of which one part may fail."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import pytest

from msm_fast import AsyncSessionManager, SessionManager, operations
from msm_fast.forks import take_each

NODES = "n1:127.0.0.1:1,n2:127.0.0.1:2"  # nobody is asked


def fail() -> None:
    raise OSError("the disk is gone")


def test_a_step_that_fails_is_told_and_keeps_no_other_from_being_taken(caplog: pytest.LogCaptureFixture) -> None:
    taken: list[int] = []
    take_each(lambda: taken.append(1), fail, lambda: taken.append(2))
    assert taken == [1, 2]
    assert "the disk is gone" in caplog.text


def connections_of(made: Any) -> object:
    """Return what is made anew together with the driver's connections."""
    return made._driver._links if isinstance(made, AsyncSessionManager) else made._driver._lock


@pytest.mark.parametrize("make", [SessionManager, AsyncSessionManager])
def test_no_manager_of_a_child_uses_its_parents_connections_whatever_of_another_cannot_be_renewed(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    make: Callable[[str], Any],
) -> None:
    managers = [make(NODES) for _ in range(3)]
    monkeypatch.setattr(operations, "_managers", managers)
    before = [connections_of(made) for made in managers]
    monkeypatch.setattr(managers[1], "_renew_locks_after_fork", fail)
    monkeypatch.setattr(managers[2]._ctx.health, "renew_lock", fail)
    lock_before = managers[2]._ctx.missed._lock
    operations._after_fork_in_child()
    assert all(connections_of(made) is not old for made, old in zip(managers, before, strict=True))
    assert managers[2]._ctx.missed._lock is not lock_before
    assert len(caplog.records) == 2


LOCKS = (type(threading.Lock()), type(threading.RLock()))


def locks_of(root: object) -> list[object]:
    """Return the locks that can be reached from there, but for those of whole modules and classes."""
    seen: dict[int, object] = {}
    reached = [root]
    while reached:
        thing = reached.pop()
        if id(thing) not in seen and not isinstance(thing, (ModuleType, type)):
            seen[id(thing)] = thing
            reached += (thing.__closure__ or ()) if isinstance(thing, FunctionType) else gc.get_referents(thing)
    return [thing for thing in seen.values() if isinstance(thing, LOCKS)]


@pytest.mark.parametrize(
    "settings", [{}, {"sticky": True, "route": "a"}, {"locking": "all"}, {"local_store": "sqlite:///sessions"}]
)
@pytest.mark.parametrize("make", [SessionManager, AsyncSessionManager])
def test_a_child_uses_no_lock_that_another_thread_of_its_parent_may_have_held(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    make: Callable[..., Any],
    settings: dict[str, Any],
) -> None:
    monkeypatch.chdir(tmp_path)
    made = make(NODES, **settings)
    monkeypatch.setattr(operations, "_managers", [made])
    if isinstance(made, AsyncSessionManager):
        made._threads.start(lambda: None)
    before = locks_of(made)
    operations._after_fork_in_child()
    after = {id(lock) for lock in locks_of(made)}
    assert len(before) > 5
    assert [lock for lock in before if id(lock) in after] == []
