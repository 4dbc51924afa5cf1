"""What happened in a schedule, as the browsers saw it: requests with their outcomes, in steps of the schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["ok", "none", "unavailable", "locked out", "conflict", "running"]
"""ok: a session was found or made, and saved with `status`. none: there was no session. unavailable: it was said that
none could be reached, or stored; what was written may be there or not. running: for ever, it was broken off."""

SET_BY_MANY = ("shared", "max_inactive", "absolute_lifetime")
"""An attribute and the lifetimes, which requests take from each other; all else is set by one."""

ACKNOWLEDGED = ("stored", "merged")


@dataclass
class Request:
    """One request. began, ended: steps; with _s virtual seconds. found: the attributes before it wrote. wrote: what it
    set. set: what it set, or took away (None), of SET_BY_MANY.
    """

    n: int
    browser: int
    worker: int
    presented: str
    began: int
    action: Literal["write", "logout", "rotate", "read"] = "write"
    outcome: Outcome = "running"
    found: dict[str, Any] = field(default_factory=dict)
    wrote: dict[str, Any] = field(default_factory=dict)
    set: dict[str, int | None] = field(default_factory=dict)
    status: str = ""
    n_copies: int = 0
    is_local: bool = False
    cookie: str = ""
    ended: int = -1
    began_s: float = 0.0
    ended_s: float = 0.0
    count: int = 0
    """With locks: what it counted up to."""
    life: int = 0
    """Sticky: how often its worker had died before."""
    is_from_memory: bool = False
    """Sticky: it came to the worker that its cookie names, which is not the one that has ended the session."""
    was_written: bool = False
    """Sticky: its worker has lived until all that it had queued was written."""

    @property
    def is_saved(self) -> bool:
        """Whether it was told that what it wrote is stored, or is about to be."""
        return self.outcome == "ok" and self.status in (*ACKNOWLEDGED, "queued")

    @property
    def is_acknowledged(self) -> bool:
        """Whether it was told that the cluster has what it wrote, on two nodes."""
        return self.outcome == "ok" and self.status in ACKNOWLEDGED and self.n_copies > 1

    @property
    def is_logout(self) -> bool:
        """Whether it was told that its session has ended."""
        return self.action == "logout" and self.outcome == "ok" and self.status == "invalidated"


@dataclass
class FinalRead:
    """What a worker reads in the end. among: the nodes that it can reach, if it has seen nothing before; or which
    worker it is. values: of SET_BY_MANY.
    """

    browser: int
    among: str
    found: dict[str, Any] | None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass
class WorkerAtEnd:
    """What a worker is like when everything has healed."""

    state: str
    n_local: int
    near_bytes: int
    healed_after_s: float = 0.0


@dataclass
class History:
    requests: list[Request] = field(default_factory=list)
    finals: list[FinalRead] = field(default_factory=list)
    workers: list[WorkerAtEnd] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    max_inactive_s: float = 0.0

    def of(self, browser: int) -> list[Request]:
        """Return one browser's requests."""
        return [request for request in self.requests if request.browser == browser]

    def browsers(self) -> list[int]:
        """Return all browsers."""
        return sorted({request.browser for request in self.requests})
