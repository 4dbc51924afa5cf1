"""What happened, told to whoever subscribed."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msm_fast.logs import Log

__all__ = ["Event", "EventKind", "Events"]

_log = Log("msm_fast")

EventKind = Literal[
    "node_down",
    "node_up",
    "node_restarted",
    "nodes_changed",
    "state_changed",
    "reset",
    "fallback",
    "dropped",
    "relocated",
    "conflict",
    "lock_lost",
    "ignored_change",
    "corrupt",
    "unreadable",
    "refused",
    "unserializable",
    "blacklisted",
    "blacklist_problem",
    "application_stopped",
]

_LEVELS: dict[EventKind, int] = {
    "node_down": logging.WARNING,
    "node_up": logging.INFO,
    "node_restarted": logging.WARNING,
    "nodes_changed": logging.WARNING,
    "state_changed": logging.WARNING,
    "reset": logging.WARNING,
    "fallback": logging.INFO,
    "dropped": logging.WARNING,
    "relocated": logging.INFO,
    "conflict": logging.DEBUG,
    "lock_lost": logging.WARNING,
    "ignored_change": logging.WARNING,
    "corrupt": logging.ERROR,
    "unreadable": logging.WARNING,
    "refused": logging.WARNING,
    "unserializable": logging.WARNING,
    "blacklisted": logging.WARNING,
    "blacklist_problem": logging.WARNING,
    "application_stopped": logging.CRITICAL,
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. node: its id. session: the digest of a session's id. detail: the sentence to log."""

    kind: EventKind
    detail: str
    node: str | None = None
    session: str | None = None


class Events:
    """Logs each event and passes it to the listeners. A listener that raises is logged and does not stop the others.

    Thread-safety: subscribing replaces the tuple of listeners; telling reads it once.
    """

    __slots__ = ("_listeners",)

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], None], ...] = ()

    def subscribe(self, listener: Callable[[Event], None]) -> None:
        """Call listener with every event from now on, in the thread in which it happens."""
        self._listeners = (*self._listeners, listener)

    def tell(self, event: Event) -> None:
        """Log event and pass it on."""
        level = _LEVELS[event.kind]
        if _log.is_enabled_for(level):
            _log.write(level, "%s", (event.detail,), extra={"msm_event": event})
        for listener in self._listeners:
            try:
                listener(event)
            except Exception:  # noqa: BLE001 - a listener's fault must not become a request's
                _log.exception("a listener failed on the event %s", event.kind)
