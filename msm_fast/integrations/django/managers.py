"""The managers of a Django process: one for threads, and one for each event loop, all with the settings MSM_FAST."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncGenerator, Mapping
from functools import partial
from typing import Any

from django.conf import settings as django_settings
from django.core.signals import setting_changed
from django.utils.safestring import SafeString

from msm_fast._core.codec import register_type
from msm_fast.async_manager import AsyncSessionManager
from msm_fast.engine.events import Event
from msm_fast.errors import ConfigurationError
from msm_fast.integrations.django.signals import session_event
from msm_fast.manager import SessionManager
from msm_fast.operations import Operations
from msm_fast.policies import DistributionState
from msm_fast.settings import Settings

__all__ = ["Managers", "has_own_lifetime", "managers", "process_manager", "settings_of_django"]

with contextlib.suppress(ConfigurationError):  # the application may have done so itself
    register_type(SafeString, "django.SafeString", str.__str__, SafeString)  # str() would leave it as it is


def settings_of_django() -> Settings:
    """Return the settings that MSM_FAST gives, a dict of what Settings.build takes; nested ones may be dicts too.

    max_inactive is SESSION_COOKIE_AGE if it is not given. What the native serializer does not know, such as a member of
    an enumeration, is stored as Django's own sessions have it, as JSON, if serializer is not given.
    Raises: ConfigurationError, which calls SESSION_COOKIE_AGE by its name.
    """
    try:
        return _build_settings()
    except ConfigurationError as error:
        # Not with the frames that it comes from: their variables are all settings, and Django's error pages show them.
        raise error.with_traceback(None) from None


def _build_settings() -> Settings:
    given = _given()
    given.setdefault("max_inactive", django_settings.SESSION_COOKIE_AGE)
    given.setdefault("serializer", ("native", "json"))
    try:
        return Settings.from_mapping(given)
    except ConfigurationError as error:
        if error.setting != "max_inactive" or has_own_lifetime():
            raise
        raise ConfigurationError("SESSION_COOKIE_AGE", error.value, error.accepted) from error


def has_own_lifetime() -> bool:
    """Whether MSM_FAST itself says for how long a session may be unused."""
    return "max_inactive" in _given()


def _given() -> dict[str, Any]:
    given = getattr(django_settings, "MSM_FAST", {})
    if not isinstance(given, Mapping):
        # Not with its value, which may hold secrets.
        raise ConfigurationError("MSM_FAST", type(given), 'a dict of settings, such as {"nodes": "n1:10.0.0.1:11211"}')
    return {str(name): value for name, value in given.items()}


class Managers:
    """Makes managers when they are first needed.

    They keep sessions on this host in one place, so that without the cluster, too, all views of a process see the same
    ones. What an operator asks of the one for threads, the others follow; and when a session that could not be stored
    stops one, or its distribution, all are stopped.
    With sticky sessions there is the one for threads only: a session lives in one manager.
    Thread-safety: shared by all threads; a forked child makes connections of its own.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.is_sticky = settings.sticky
        self.has_own_lifetime = has_own_lifetime()
        self._lock = threading.Lock()
        self.threads: SessionManager | None = None
        """The manager for threads, once it was asked for."""
        self._for_loops: dict[asyncio.AbstractEventLoop, tuple[AsyncSessionManager, AsyncGenerator[None, None]]] = {}
        """Of each loop its manager, and what closes that with the loop."""

    def for_threads(self) -> SessionManager:
        """Return the manager for blocking calls, from any thread."""
        if self.threads is None:
            with self._lock:
                if self.threads is None:
                    manager = SessionManager(self.settings)
                    manager.subscribe(partial(self._hear, manager))
                    self.threads = manager
        return self.threads

    def for_loop(self) -> AsyncSessionManager:
        """Return the manager of the running event loop; one whose loop is closed is used again."""
        loop = asyncio.get_running_loop()
        known = self._for_loops.get(loop)
        if known is not None:
            return known[0]
        beside = self.for_threads()
        with self._lock:
            manager = self._take_left_behind() or self._new_for_loop(beside)
            end = _end_with_loop(manager)
            self._for_loops[loop] = manager, end
        manager.follow(beside)
        with contextlib.suppress(StopIteration):
            end.__anext__().send(None)  # up to its yield, where it waits for nothing
        return manager

    def close(self) -> None:
        """Close the manager for threads, and have the others close in their loops."""
        if self.threads is not None:
            self.threads.close()
        for loop, (manager, _) in self._for_loops.items():
            with contextlib.suppress(RuntimeError):  # the loop is closed, and all of the manager's is gone with it
                loop.call_soon_threadsafe(_start_closing, manager)
        self._for_loops.clear()

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()

    def _take_left_behind(self) -> AsyncSessionManager | None:
        for loop in self._for_loops:
            if loop.is_closed():
                return self._for_loops.pop(loop)[0]
        return None

    def _new_for_loop(self, beside: SessionManager) -> AsyncSessionManager:
        manager = AsyncSessionManager(self.settings)
        manager.share_memory(beside)
        manager.subscribe(partial(self._hear, manager))
        return manager

    def _hear(self, manager: Operations, event: Event) -> None:
        """Pass on what happened in one manager; what concerns the others, they do too."""
        if event.kind == "application_stopped":
            for other in self._all():
                other.stop()
        elif event.kind in ("nodes_changed", "state_changed"):
            self._align_with(manager)
        session_event.send_robust(sender=type(manager), event=event)

    def _align_with(self, changed: Operations) -> None:
        """Have the managers of loops follow that for threads, or stop it where a value stopped one of theirs."""
        if self.threads is None:
            return
        if changed is self.threads:
            for loop, (manager, _) in list(self._for_loops.items()):
                with contextlib.suppress(RuntimeError):  # the loop is closed; who uses its manager again has it follow
                    loop.call_soon_threadsafe(manager.follow, changed)
        elif changed.distribution.state is DistributionState.STOPPED:
            self.threads.distribution.follow(changed.distribution)

    def _all(self) -> list[Operations]:
        """Return the managers there are."""
        for_threads = [] if self.threads is None else [self.threads]
        return [*for_threads, *(manager for manager, _ in self._for_loops.values())]


async def _end_with_loop(manager: AsyncSessionManager) -> AsyncGenerator[None, None]:
    """Close the manager's connections when the running loop ends its generators, the last thing it does.

    A server without an event loop gives each request of an asynchronous view one of its own.
    """
    try:
        yield
    finally:
        await manager.disconnect()


_closing: set[asyncio.Task[None]] = set()


def _start_closing(manager: AsyncSessionManager) -> None:
    task = asyncio.get_running_loop().create_task(manager.close())
    _closing.add(task)
    task.add_done_callback(_closing.discard)


_managers: Managers | None = None
_lock = threading.Lock()


def managers() -> Managers:
    """Return the managers of this process. Raises: ConfigurationError when they are first asked for."""
    global _managers
    if _managers is None:
        with _lock:
            if _managers is None:
                _managers = Managers(settings_of_django())
    return _managers


def process_manager() -> SessionManager:
    """Return the manager of this process, to ask for nodes and statistics, to change nodes, or to stop distribution.

    Views in an event loop have another one, which does what is asked of this one, but counts for itself.
    """
    return managers().for_threads()


def _forget(*, setting: str, **_: object) -> None:
    """Begin anew when a test changes the settings.

    Not for SESSION_COOKIE_AGE, which is read anew by each session that is stored: without nodes all would end.
    """
    global _managers
    if setting == "MSM_FAST":
        with _lock:
            before, _managers = _managers, None
        if before is not None:
            before.close()


def _renew_locks_after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    if _managers is not None:
        _managers.renew_lock()


setting_changed.connect(_forget)
os.register_at_fork(after_in_child=_renew_locks_after_fork)
