"""What is promised of each row: ratios to rivals and floors that are measured in the same run."""

from __future__ import annotations

from typing import NamedTuple

OURS = "msm_fast"
FLOOR = "floor: "
"""How the names of the contenders begin; all others are rivals."""

CPU_TIME = "CPU time"
WALL_TIME = "wall time"

NODE_OF_KEY = "node of a key, 10 nodes"
NODE_AND_BACKUP = "node and backup node of a key, 10 nodes"
NODE_OF_ID = "node of a session id"
NEAR_CACHE_HIT = "near cache: hit among 10,000"
ENCODE = "encode 20 mixed attributes"
CYCLE = "load 200 attributes, touch 2, save"
ROUND_TRIP = "get 2 KB"
REQUEST = "request with backup copy"
STICKY = "sticky request, nothing changed"
CONCURRENT = "1,000 requests at once, asyncio"


class Target(NamedTuple):
    """One promise about a group.

    limit: against a rival how many times as fast we must be, at least; against a floor how many times its duration we
    may take, at most; without a contender how many seconds.
    """

    group: str
    contender: str | None
    limit: float

    def is_held_by(self, value: float) -> bool:
        """Tell whether what was measured (a ratio, or seconds) is what was promised."""
        return value >= self.limit if self.is_minimum else value <= self.limit

    @property
    def is_minimum(self) -> bool:
        """Whether more is better."""
        return self.contender is not None and not self.contender.startswith(FLOOR)


def timed(group: str, clock: str) -> str:
    """Return the name of a group that is measured by both clocks."""
    return f"{group}, {clock}"


TARGETS = (
    Target(NODE_OF_KEY, "uhashring", 20),
    Target(NODE_OF_KEY, "floor: one xxh3_64_intdigest", 2),
    Target(NODE_OF_ID, "re.fullmatch, its groups read", 4),
    Target(NEAR_CACHE_HIT, "lru-dict", 1),
    Target(NEAR_CACHE_HIT, "cachebox LRUCache", 1),
    Target(NEAR_CACHE_HIT, "floor: dict", 1.3),
    Target(ENCODE, "pickle, whole dict", 2.5),
    Target(ENCODE, "msgspec, per attribute", 1),
    Target(CYCLE, "pickle, whole dict", 10),
    Target(CYCLE, "msgspec, whole dict", 4),
    Target(timed(ROUND_TRIP, CPU_TIME), "floor: a bare socket's send and recv", 1.25),
    Target(timed(ROUND_TRIP, CPU_TIME), "pymemcache Client", 1.4),
    Target(timed(ROUND_TRIP, CPU_TIME), "pymemcache HashClient", 3),
    Target(timed(ROUND_TRIP, CPU_TIME), "pylibmc", 1),
    Target(timed(REQUEST, CPU_TIME), "Django's cache sessions on pymemcache", 3),
    Target(timed(REQUEST, CPU_TIME), "Django's cache sessions on pylibmc", 1.5),
    Target(timed(REQUEST, CPU_TIME), "Flask-Session on pymemcache", 1.5),
    Target(timed(REQUEST, CPU_TIME), "floor: two bare round trips, with backup", 1.6),
    Target(STICKY, None, 5e-6),
)
