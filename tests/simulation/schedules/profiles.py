"""What can happen in a schedule: how many browsers there are, what fails, and with what settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from msm_fast import Reconnect, Timeouts
from msm_fast.engine.effects import FailureKind

Harm = Literal["restart", "evict", "flush", "corrupt"]

QUICK: dict[str, Any] = {"first": 0.2, "factor": 1.5, "cap": 0.5}
LOCAL: dict[str, Any] = {"on_cluster_lost": "local", "on_corrupt": "local"}
SEALED: dict[str, Any] = {
    "secrets": ("the secret of all schedules",),
    "encrypt": True,
    "compress_over": 0,
    "hash_ids": True,
}


@dataclass(frozen=True)
class Profile:
    """victims: how many nodes fail, together; they are the only ones. harms: what their memory may lose meanwhile."""

    name: str
    n_browsers: int = 1
    n_requests: int = 12
    victims: tuple[int, ...] = (1,)
    faults: tuple[FailureKind | None, ...] = (None, None, "refused", "reset", "timeout", "protocol")
    harms: tuple[Harm, ...] = ("restart",)
    logout: float = 0.3
    rotate: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)
    is_outage: bool = False
    """More nodes fail than sessions have backups. What was stored as the faults began or ended, when each worker could
    reach other nodes, may then lose against what was stored elsewhere."""
    shares_local_store: bool = False
    is_sticky: bool = False
    is_locking: bool = False
    deaths: float = 0.0
    """How probable it is, in each step, that a worker dies."""


PROFILES = (
    Profile("one node fails", settings={"reconnect": Reconnect(**QUICK)}),
    Profile(
        "one node loses items",
        harms=("restart", "evict", "evict", "flush", "corrupt"),
        settings={"reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "outage, discard",
        victims=(3,),
        faults=(None, None, "refused", "unreachable", "timeout"),
        harms=(),
        settings={**LOCAL, "reconnect": Reconnect(**QUICK)},
        is_outage=True,
        shares_local_store=True,
    ),
    Profile(
        "outage, replay",
        victims=(3,),
        faults=(None, None, "refused", "unreachable", "timeout"),
        harms=(),
        logout=0.0,
        is_outage=True,
        settings={**LOCAL, "reconnect": Reconnect(**QUICK, on_reconnect="replay", replay_rate=10_000)},
    ),
    Profile(
        "several browsers",
        n_browsers=3,
        n_requests=18,
        rotate=0.15,
        settings={"reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "encrypted, compressed and hashed",
        n_browsers=2,
        n_requests=16,
        harms=("restart", "evict", "flush", "corrupt"),
        rotate=0.15,
        settings={**SEALED, "reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "encrypted, compressed and hashed; outage, replay",
        victims=(3,),
        faults=(None, None, "refused", "unreachable", "timeout"),
        harms=(),
        logout=0.0,
        is_outage=True,
        settings={**LOCAL, **SEALED, "reconnect": Reconnect(**QUICK, on_reconnect="replay", replay_rate=10_000)},
    ),
    Profile(
        "sticky",
        n_browsers=2,
        n_requests=16,
        harms=("restart", "evict", "flush"),
        is_sticky=True,
        deaths=0.02,
        settings={"backup": "async", "reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "sticky, synchronous",
        n_browsers=2,
        n_requests=16,
        is_sticky=True,
        deaths=0.02,
        settings={"backup": "sync", "reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "locks",
        n_browsers=2,
        n_requests=16,
        faults=(None,),
        harms=(),
        is_locking=True,
        deaths=0.02,
        settings={"timeouts": Timeouts(lock=10, lock_ttl=1)},
    ),
    Profile(
        "locks, one node fails",
        n_browsers=2,
        n_requests=16,
        is_locking=True,
        settings={"timeouts": Timeouts(lock=10, lock_ttl=1), "reconnect": Reconnect(**QUICK)},
    ),
)
