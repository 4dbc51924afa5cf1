"""The invariants, each as a check of a recorded history that returns what violates it.

By number; those that a history cannot show are tested elsewhere:

I2 deadlines, I11 expiry to the second, I16 stability: tests/simulation/schedules/sequential.py. I13 poisoned
connections: tests/adversity/test_interruptions.py. I14 fork and threads: tests/integration/test_fork.py,
test_concurrency.py.
I17 corruption and I18 replacement: what befalls items here would violate I1 and I3. I19 events: beside the tests of
what they tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from msm_fast import SessionId
from tests.simulation.schedules.history import SET_BY_MANY, History, Request

UNTIL_TOLD_S = 1.0
"""How long a node that missed a logout may serve the session to a worker that has not missed the node."""

_LATE_S = 4.5

Check = Callable[[History], list[str]]


def i01_durability(history: History) -> list[str]:
    """What was acknowledged is there in the end, whichever node is out of reach."""
    violations = []
    for final in history.finals:
        if _began_logout(history, final.browser) is not None:
            continue
        written = {name for request in history.of(final.browser) if request.was_written for name in request.wrote}
        missing = (_acknowledged(history.of(final.browser)) | written) - set(final.found or ())
        if missing or final.found is None:
            violations.append(f"browser {final.browser}, {final.among}: {sorted(missing)} lost of {final.found}")
    return violations


def i03_no_leak(history: History) -> list[str]:
    """A browser is only given what it wrote itself."""
    violations = []
    for browser in history.browsers():
        for request in history.of(browser):
            if request.found.get("owner", browser) != browser:
                violations.append(f"request {request.n} was given the session of browser {request.found['owner']}")
    return violations


def i04_read_your_writes(history: History) -> list[str]:
    """Sticky: a request sees what those before it saved in the same worker, written or not."""
    violations = []
    for request, before in _reads(history):
        here = [other for other in before if (other.worker, other.life) == (request.worker, request.life)]
        missing = {name for other in here if other.is_saved for name in other.wrote} - set(request.found)
        if missing:
            violations.append(f"request {request.n} does not see {sorted(missing)}, saved in its worker")
    return violations


def i05_monotonic_reads(history: History) -> list[str]:
    """A request finds at least what one that had ended before it found or was acknowledged.

    What was not acknowledged before it began, as two copies, may be on one node only, and go with that.
    """
    violations = []
    for request, before in _reads(history):
        seen = set().union(*(other.found for other in _in_cluster(before)), _acknowledged(_in_cluster(before)))
        others = history.of(request.browser)
        on_one_node = [other for other in others if not (other.is_acknowledged and other.ended <= request.began)]
        missing = seen.difference(request.found, *(other.wrote for other in on_one_node))
        if missing:
            violations.append(f"request {request.n} does not see {sorted(missing)}")
    return violations


def i06_no_lost_update(history: History) -> list[str]:
    """With locks: no two requests count up to the same number."""
    violations = []
    for browser in history.browsers():
        counted: dict[int, int] = {}
        for request in history.of(browser):
            if request.is_acknowledged and request.count:
                other = counted.setdefault(request.count, request.n)
                if other != request.n:
                    violations.append(f"requests {other} and {request.n} both counted up to {request.count}")
    return violations


def i06_later_value_stays(history: History) -> list[str]:
    """Of what several requests set, attribute or lifetime, the value stays that no later request has replaced."""
    violations = []
    for final in history.finals:
        for name in SET_BY_MANY if final.found is not None else ():
            setting = [request for request in history.of(final.browser) if name in request.set]
            over = [request for request in setting if request.is_acknowledged]
            may_be = [r.set[name] for r in setting if not any(other.began > r.ended >= 0 for other in over)]
            if final.values[name] not in may_be and over:
                violations.append(
                    f"browser {final.browser}, {final.among}: {name} is {final.values[name]}, not {may_be}"
                )
    return violations


def i07_lock_safety(history: History) -> list[str]:
    """The lock of a worker that died keeps others out no longer than it lives."""
    return [
        f"request {request.n} did not get its lock" for request in history.requests if request.outcome == "locked out"
    ]


def i08_error_is_no_miss(history: History) -> list[str]:
    """Nobody is told that a session does not exist while it does."""
    return [
        f"request {request.n} found no session"
        for request in history.requests
        if (request.outcome == "none" or request.status == "invalidated")
        and request.action != "logout"
        and not _may_have_ended(history, request)
    ]


def i09_no_resurrection(history: History) -> list[str]:
    """What was ended is never stored again, nor served but by a node that is still to be told of it, for a second.

    Sticky: nor by the worker that has ended it, if it still lives. Another serves what it has in memory.
    """
    violations = []
    for browser in history.browsers():
        ended = [request for request in history.of(browser) if request.is_logout]
        if not ended:
            continue
        for request in _in_cluster(history.of(browser)):
            is_later = request.began > ended[0].ended
            is_late = request.began_s > ended[0].ended_s + UNTIL_TOLD_S and not request.is_from_memory
            if request.found and is_later and (is_late or request.is_acknowledged):
                violations.append(f"request {request.n} was served a session that had been ended")
    return [*violations, *i09_ended_for_good(history)]


def i09_ended_for_good(history: History) -> list[str]:
    """What was ended is gone once every worker is as it should be, whatever failed meanwhile."""
    ended = {request.browser for request in history.requests if request.is_logout}
    return [
        f"browser {final.browser}, {final.among}: a session that was ended is back"
        for final in history.finals
        if final.browser in ended and final.found
    ]


def i11_expiry(history: History) -> list[str]:
    """A session is there for as long as it is used, and not much longer."""
    violations = []
    for browser in history.browsers():
        requests = history.of(browser)
        lifetime_s = history.max_inactive_s
        for request in requests if _began_logout(history, browser) is None else ():
            used = [other for other in requests if 0 <= other.ended < request.began and other.found]
            if request.outcome == "none" and any(request.ended_s - other.began_s < 0.8 * lifetime_s for other in used):
                violations.append(f"request {request.n} found no session, though it was used")
            others = [other for other in requests if other.began < request.ended and other is not request]
            is_over = all(o.ended >= 0 and o.ended_s + lifetime_s + _LATE_S < request.began_s for o in others)
            if request.found and others and is_over:
                violations.append(f"request {request.n} found a session that was over")
    return violations


def i12_bounded(history: History, *, most_bytes: int = 64 << 20) -> list[str]:
    """What is kept near stays within its bounds."""
    return [f"{worker.near_bytes} bytes are kept near" for worker in history.workers if worker.near_bytes > most_bytes]


def i15_convergence(history: History, *, within_s: float = 2.5) -> list[str]:
    """Soon after everything has healed every worker distributes, and keeps nothing for itself."""
    return [
        f"worker {i} is {worker.state} with {worker.n_local} local sessions after {worker.healed_after_s:.1f} s"
        for i, worker in enumerate(history.workers)
        if worker.state != "distributed" or worker.n_local or worker.healed_after_s > within_s
    ]


def i20_id_stability(history: History) -> list[str]:
    """Of an id only the node changes, but for a new one that was asked for."""
    violations = []
    for request in history.requests:
        before, after = SessionId.parse(request.presented), SessionId.parse(request.cookie)
        if request.outcome != "ok" or request.action != "write" or before is None or after is None:
            continue
        if before.plain != after.plain and request.status not in ("", "invalidated") and request.found:
            violations.append(f"request {request.n}: the id changed")
    return violations


ALL: tuple[Check, ...] = (
    i01_durability,
    i03_no_leak,
    i05_monotonic_reads,
    i06_later_value_stays,
    i08_error_is_no_miss,
    i09_no_resurrection,
    i12_bounded,
    i15_convergence,
    i20_id_stability,
)


STICKY: tuple[Check, ...] = (i04_read_your_writes, *ALL)
ASYNCHRONOUS: tuple[Check, ...] = tuple(check for check in STICKY if check is not i05_monotonic_reads)
"""What holds while other workers do not see yet what one has saved."""

BEHIND: tuple[Check, ...] = tuple(check for check in ALL if check is not i05_monotonic_reads)
"""What holds while the home may have what no backup has yet, and go with it."""

LOCKING: tuple[Check, ...] = (i06_no_lost_update, i07_lock_safety, *ALL)

SHORT_LIVED: tuple[Check, ...] = (i03_no_leak, i09_no_resurrection, i11_expiry, i12_bounded, i15_convergence)
"""What holds of sessions that may be over before the schedule is."""

OVERLAPPING: tuple[Check, ...] = (
    i01_durability,
    i03_no_leak,
    i08_error_is_no_miss,
    i09_ended_for_good,
    i12_bounded,
    i15_convergence,
)
"""What holds of sticky sessions that several workers serve at once."""

OUTAGE: tuple[Check, ...] = (
    i03_no_leak,
    i08_error_is_no_miss,
    i09_ended_for_good,
    i12_bounded,
    i15_convergence,
    i20_id_stability,
)
"""What holds even while more nodes are away than sessions have backups."""


def violations_of(history: History, checks: Iterable[Check] = ALL) -> list[str]:
    """Return what violates any of the checks, each with the check's name."""
    return [f"{check.__name__}: {violation}" for check in checks for violation in check(history)]


def _reads(history: History) -> Iterator[tuple[Request, list[Request]]]:
    """Yield each request that was given what the cluster has, until a logout, with those that had ended before it."""
    for browser in history.browsers():
        logout = _began_logout(history, browser)
        for request in _in_cluster(history.of(browser)):
            if logout is None or request.ended <= logout:
                yield request, [other for other in history.of(browser) if 0 <= other.ended < request.began]


def _acknowledged(requests: Iterable[Request]) -> set[str]:
    return {name for request in requests if request.is_acknowledged for name in request.wrote}


def _in_cluster(requests: Iterable[Request]) -> list[Request]:
    """Return the requests that were given what the cluster has."""
    return [request for request in requests if request.outcome == "ok" and not request.is_local]


def _began_logout(history: History, browser: int) -> int | None:
    return min((request.began for request in history.of(browser) if request.action == "logout"), default=None)


def _may_have_ended(history: History, request: Request) -> bool:
    logout = _began_logout(history, request.browser)
    return logout is not None and (request.ended < 0 or request.ended >= logout)
