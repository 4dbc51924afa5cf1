"""What can happen in a schedule: how many browsers there are, what fails, and with what settings."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from msm_fast import NearCacheSettings, Reconnect, Timeouts
from msm_fast.engine.effects import FailureKind

Harm = Literal["restart", "evict", "flush", "corrupt", "fill"]

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
    cancels: float = 0.0
    """How probable it is, in each step, that a request is broken off where it is."""
    reads: float = 0.0
    """How many requests change nothing."""
    sets: float = 0.0
    """How probable it is that a request sets each of what others set as well: an attribute, the lifetimes."""
    drains: float = 0.0
    """How probable it is, in each step, that a worker is told of a node that drains, if it was not yet."""
    leaps: float = 0.0
    """How probable it is, in each step, that much time goes by."""
    overlaps: bool = False
    """Sticky: a browser's requests may be in several workers at once."""
    version: tuple[int, int, int] = (1, 6, 18)
    own_settings: tuple[dict[str, Any], ...] = ({},)
    """What the workers have besides, by turns."""

    @property
    def is_calm(self) -> bool:
        """Whether nothing befalls the nodes."""
        return not any(self.faults) and not self.harms

    @property
    def can_be_read_at_once(self) -> bool:
        """Whether every worker has to find everything as soon as all has healed, before another request has come."""
        return not (self.is_outage or self.is_sticky or self.is_locking or self.leaps)


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
        rotate=0.15,
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
        drains=0.04,
        settings={"timeouts": Timeouts(lock=10, lock_ttl=3)},
    ),
    Profile(
        "locks, one node fails",
        n_browsers=2,
        n_requests=16,
        is_locking=True,
        settings={"timeouts": Timeouts(lock=10, lock_ttl=3), "reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "newer servers, many readers",
        n_browsers=2,
        n_requests=16,
        harms=("restart", "evict", "flush", "corrupt"),
        reads=0.3,
        version=(1, 6, 40),
        settings={"reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "little memory, all is validated",
        n_browsers=3,
        n_requests=18,
        harms=("restart", "evict", "flush", "corrupt"),
        reads=0.3,
        settings={"reconnect": Reconnect(**QUICK), "near_cache": NearCacheSettings(max_sessions=2, validate_over=1)},
    ),
    Profile(
        "requests are broken off",
        n_browsers=2,
        n_requests=20,
        reads=0.2,
        cancels=0.05,
        settings={"reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "one attribute, lifetimes of their own",
        n_requests=16,
        faults=(None,),
        harms=(),
        sets=0.25,
        settings={"reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "short lives",
        n_requests=20,
        harms=("restart", "evict", "flush", "corrupt"),
        reads=0.4,
        leaps=0.05,
        settings={"reconnect": Reconnect(**QUICK), "max_inactive": 60},
    ),
    Profile(
        "full",
        n_requests=16,
        harms=("fill",),
        settings={"reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "one node drains",
        n_requests=20,
        faults=(None,),
        harms=(),
        drains=0.04,
        settings={"reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "failover",
        settings={"reconnect": Reconnect(**QUICK), "failover_nodes": "n3"},
    ),
    Profile(
        "conflicts are errors",
        n_requests=16,
        settings={"reconnect": Reconnect(**QUICK), "on_conflict": "error"},
    ),
    Profile(
        "secrets and backups differ",
        n_browsers=2,
        n_requests=16,
        harms=("restart", "evict", "flush", "corrupt"),
        reads=0.2,
        settings={"reconnect": Reconnect(**QUICK)},
        own_settings=(
            {"secrets": ("the secret of all schedules", "the secret before")},
            {"secrets": ("the secret before", "the secret of all schedules"), "replicas": 2},
        ),
    ),
    Profile(
        "sticky, several workers at once",
        n_browsers=2,
        n_requests=16,
        harms=("restart", "evict", "flush"),
        is_sticky=True,
        overlaps=True,
        settings={"reconnect": Reconnect(**QUICK), "backup": "async"},
    ),
    Profile(
        "sticky; outage, replay",
        n_browsers=2,
        n_requests=16,
        victims=(3,),
        faults=(None, None, "refused", "unreachable", "timeout"),
        harms=(),
        is_outage=True,
        is_sticky=True,
        settings={
            **LOCAL,
            "backup": "async",
            "reconnect": Reconnect(**QUICK, on_reconnect="replay", replay_rate=10_000),
        },
    ),
    Profile(
        "backups behind",
        n_browsers=2,
        n_requests=16,
        harms=("restart", "evict", "flush", "corrupt"),
        reads=0.2,
        deaths=0.02,
        settings={"backup": "async", "reconnect": Reconnect(**QUICK)},
    ),
    Profile(
        "backups behind, no node fails",
        n_browsers=2,
        n_requests=16,
        victims=(0,),
        faults=(None,),
        harms=(),
        reads=0.2,
        deaths=0.02,
        settings={"backup": "async"},
    ),
    Profile(
        "backups behind, locks",
        n_browsers=2,
        n_requests=16,
        victims=(0,),
        faults=(None,),
        harms=(),
        is_locking=True,
        deaths=0.02,
        settings={"backup": "async", "timeouts": Timeouts(lock=10, lock_ttl=3)},
    ),
)
