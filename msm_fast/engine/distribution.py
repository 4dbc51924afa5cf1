"""Whether sessions go to the cluster now, and what it takes to go back to it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from msm_fast.engine.health import ClusterHealth
from msm_fast.policies import DistributionState

__all__ = ["DistributionSwitch"]


class DistributionSwitch:
    """The distribution's state.

    The cluster is lost when `looks_lost` says so. It is not used again just because a node answers: first the
    reconnection has to tell what was missed and to dump what was kept locally, and calls `reconnected`.

    falls_back: whether sessions are served from this host while the cluster is lost; else they are asked for there all
    the same, so that the answer is an error.
    on_change: called with (state, state before, reason) after each change, outside the lock.
    Thread-safety: reading `state` and `is_on` takes no lock; changes are made under one.
    """

    def __init__(
        self,
        health: ClusterHealth,
        looks_lost: Callable[[], bool],
        falls_back: Callable[[], bool],
        on_change: Callable[[DistributionState, DistributionState, str], None],
    ) -> None:
        self._health = health
        self._looks_lost = looks_lost
        self._falls_back = falls_back
        self._on_change = on_change
        self._lock = threading.Lock()
        self._stop_reason: str | None = None
        self._is_cut_off = looks_lost()
        self._has_leftovers = False
        self._must_try_leftovers = False
        self.epoch = 0
        """How often the cluster has been taken up again."""
        self.state = self._current_state()
        self.is_on = self._says_on()
        """Whether sessions go to the cluster."""

    @property
    def can_reconnect(self) -> bool:
        """Whether the cluster was lost, or distribution stopped, and nothing keeps it from being used again.

        Also when a node has come back while there are sessions that could not be stored yet for want of it.
        """
        is_due = self._is_cut_off or self._must_try_leftovers
        return is_due and self._stop_reason is None and not self._looks_lost()

    def refresh(self, reason: str, *, has_node_returned: bool = False) -> None:
        """Take note that a node went down or came back, or that the nodes are others now."""
        with self._lock:
            self._must_try_leftovers |= has_node_returned and self._has_leftovers
            self._is_cut_off = self._is_cut_off or self._looks_lost()
            change = self._change()
        self._tell(change, reason)

    def stop(self, reason: str) -> None:
        """Serve everything locally until `start`; a second stop changes nothing."""
        with self._lock:
            if self._stop_reason is None:
                self._stop_reason = reason
            change = self._change()
        self._tell(change, reason)

    def start(self) -> None:
        """Take back `stop`; the cluster is used again after a reconnection."""
        with self._lock:
            if self._stop_reason is None:
                return
            self._stop_reason = None
            self._is_cut_off = True
            change = self._change()
        self._tell(change, "distribution was started again")

    def reconnected(self, *, has_leftovers: bool) -> None:
        """Use the cluster again, unless it was lost or stopped once more meanwhile.

        has_leftovers: sessions are kept here that could not be stored yet.
        """
        with self._lock:
            self._has_leftovers, self._must_try_leftovers = has_leftovers, False
            self._is_cut_off = self._looks_lost()
            if not self._is_cut_off:
                self.epoch += 1
            change = self._change()
        self._tell(change, "the cluster can be reached again")

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()

    def _current_state(self) -> DistributionState:
        if self._stop_reason is not None:
            return DistributionState.STOPPED
        if self._is_cut_off:
            return DistributionState.LOCAL
        return DistributionState.DEGRADED if self._health.down() else DistributionState.DISTRIBUTED

    def _says_on(self) -> bool:
        if self.state is DistributionState.LOCAL:
            return not self._falls_back()
        return self.state is not DistributionState.STOPPED

    def _change(self) -> tuple[DistributionState, DistributionState] | None:
        before, self.state = self.state, self._current_state()
        self.is_on = self._says_on()
        return None if self.state is before else (self.state, before)

    def _tell(self, change: tuple[DistributionState, DistributionState] | None, reason: str) -> None:
        if change is not None:
            self._on_change(*change, reason)
