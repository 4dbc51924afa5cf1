"""Running seeds, one or many, and counting what happened in them."""

from __future__ import annotations

import logging
import multiprocessing
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.schedules.checks import (
    ALL,
    ASYNCHRONOUS,
    BEHIND,
    LOCKING,
    OUTAGE,
    OVERLAPPING,
    SHORT_LIVED,
    STICKY,
    Check,
    violations_of,
)
from tests.simulation.schedules.history import History
from tests.simulation.schedules.locking import LockingSchedule
from tests.simulation.schedules.profiles import PROFILES, Profile
from tests.simulation.schedules.schedule import Schedule
from tests.simulation.schedules.sequential import SEQUENTIAL
from tests.simulation.schedules.sticky import StickySchedule

NAMES = (*(profile.name for profile in PROFILES), *SEQUENTIAL)


@dataclass
class Result:
    """What came of one seed."""

    seed: int
    profile: str
    violations: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    log: list[str] = field(default_factory=list)


def run_seed(seed: int) -> Result:
    """Run the schedule of a seed, whose rest says which profile it has. An exception is a violation as well."""
    number, name = divmod(seed, len(NAMES))[0], NAMES[seed % len(NAMES)]
    log: list[str] = []
    try:
        if name in SEQUENTIAL:
            violations, counts = SEQUENTIAL[name](number, log)
            return Result(seed, name, violations, counts, log)
        profile = PROFILES[NAMES.index(name)]
        schedule = _schedule_of(profile)(number, profile)
        log = schedule.history.log
        history = schedule.run()
        return Result(seed, name, violations_of(history, _checks(profile)), _count(history), log)
    except Exception:  # noqa: BLE001 - whatever it was, the seed is to be named
        return Result(seed, name, [traceback.format_exc()], log=log)


def _schedule_of(profile: Profile) -> type[Schedule]:
    if profile.is_sticky:
        return StickySchedule
    return LockingSchedule if profile.is_locking else Schedule


def _checks(profile: Profile) -> Iterable[Check]:
    if profile.is_outage:
        return OUTAGE
    if profile.leaps:
        return SHORT_LIVED
    if profile.overlaps:
        return OVERLAPPING
    if profile.is_sticky:
        return STICKY if profile.settings["backup"] == "sync" else ASYNCHRONOUS
    if profile.settings.get("backup") == "async" and not profile.is_calm:
        return BEHIND
    return LOCKING if profile.is_locking and not any(profile.faults) else ALL


def run_seeds(seeds: Iterable[int], n_processes: int) -> Iterator[Result]:
    """Run many seeds over some processes; without the logs."""
    with multiprocessing.Pool(n_processes, logging.disable, (logging.CRITICAL,)) as pool:
        yield from pool.imap_unordered(_run_without_log, seeds, 50)


def _run_without_log(seed: int) -> Result:
    result = run_seed(seed)
    result.log = []
    return result


def _count(history: History) -> Counter[str]:
    counts = Counter(requests=len(history.requests))
    for request in history.requests:
        counts["acknowledged"] += request.is_acknowledged or request.was_written
        counts["served locally"] += request.is_local and request.outcome == "ok"
        counts["logouts"] += request.is_logout
        counts["unavailable"] += request.outcome == "unavailable"
    return counts
