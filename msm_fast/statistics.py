"""Counts of what a manager has done."""

from __future__ import annotations

from dataclasses import dataclass, fields

from msm_fast._core.counts import Counts

__all__ = ["Counters", "NodeStatus", "Statistics"]


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """One node, as this process sees it. last_failure: "" if it never failed."""

    node_id: str
    address: str
    is_up: bool
    is_failover: bool
    is_draining: bool
    last_failure: str


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts since the manager was made, of this process."""

    requests: int = 0
    """Requests that were given a session, whether or not they looked at it."""
    loaded: int = 0
    """Sessions found by their id."""
    validated: int = 0
    """Sessions not transferred because the near copy was still right."""
    not_found: int = 0
    """Well-formed ids with no session."""
    refused_ids: int = 0
    """Cookies that are no session id, or name no configured node; they cost no round trip."""
    created: int = 0
    """New sessions stored for the first time, in the cluster or on this host."""
    stored: int = 0
    """Changed sessions stored, in the cluster or on this host, merged ones included."""
    unchanged: int = 0
    """Saves that had nothing to write."""
    queued: int = 0
    """Saves whose writing was left to the background."""
    written_behind: int = 0
    """Writes that the background has done."""
    rewritten: int = 0
    """Writes in the background that failed and were left to be tried again."""
    conflicts: int = 0
    """Saves that met another request's change first."""
    invalidated: int = 0
    rotated: int = 0
    relocated: int = 0
    """Sessions that moved to another node because theirs could not be used."""
    repaired: int = 0
    """Copies found missing or out of step and written again."""
    corrupt: int = 0
    """Items that are no record of their session; not those of another version or of an unknown secret."""
    blacklisted: int = 0
    """Names of attributes, each with a type of value, that this process put on the black list."""
    unserializable: int = 0
    """Attributes that could not be encoded or decoded, or had to give way in a session over the item limit."""
    fallbacks: int = 0
    """Sessions that the cluster, while it was used, could not give or take, served or kept on this host."""
    provisional: int = 0
    """Empty sessions that stood for one that could not be reached."""
    dropped: int = 0
    """Sessions kept on this host that are gone: dumped when the cluster came back, or for want of room."""
    replayed: int = 0
    """Sessions kept on this host that were stored in the cluster when it came back."""
    unavailable: int = 0
    """Requests for a session of which no copy could be reached."""
    locks: int = 0
    """Locks that requests got on their sessions."""
    lock_waits: int = 0
    """Requests that had to wait for a lock; one whose session moves meanwhile counts again."""
    lock_timeouts: int = 0
    """Requests that waited in vain: LockTimeout."""
    locks_lost: int = 0
    """Locks that were gone when they were to be renewed, before their request had ended."""
    round_trips: int = 0
    """Waits for memcached; several nodes asked together are one."""
    retries: int = 0
    node_failures: int = 0
    restarts: int = 0
    """Nodes that were found to have lost their memory."""


class Counters(Counts):
    """The running counts behind Statistics. Thread-safety: as Counts."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(field.name for field in fields(Statistics))

    def snapshot(self) -> Statistics:
        """Return the counts as they stand."""
        return Statistics(**self.by_name())
