"""Schedules of one request after the other, for what depends on time: deadlines and lifetimes."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from msm_fast import Reconnect, SessionUnavailable
from msm_fast.engine.effects import Exchange, FailureKind
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker, make_settings

MARGIN_S = 0.02
FAULTS: tuple[FailureKind | None, ...] = (None, None, None, "timeout", "timeout", "refused", "reset", "protocol")


def deadlines(seed: int, log: list[str]) -> tuple[list[str], Counter[str]]:
    """I2 and I16: whatever strikes, between any two exchanges, no request takes longer than its budget.

    A node that is down is asked for by nobody but its one probe, and retries keep to their share of the requests.
    """
    rng = random.Random(seed)
    driver = SimulatedDriver(["n1", "n2", "n3"], VirtualClock())
    on_lost = rng.choice(["local", "error"])
    settings = make_settings(
        on_cluster_lost=on_lost,
        on_corrupt="local",
        replicas=rng.choice([0, 1, 2]),
        reconnect=Reconnect(first=0.5, cap=2),
    )
    worker = Worker(driver, settings, rng.getrandbits(32))
    violations: list[str] = []

    def strike(effect: Exchange) -> None:
        for node in driver.nodes.values():
            if rng.random() < 0.2:
                node.fault = rng.choice(FAULTS)
        down = {batch.node for batch in effect.batches} & set(worker.ctx.health.down())
        if down and not is_probing:
            violations.append(f"a request went to {sorted(down)}, which is down")

    session_id = worker.store(n=0)
    driver.before_exchange = strike
    is_probing = False
    counts: Counter[str] = Counter()
    for n in range(30):
        driver.clock.advance(rng.random() * 0.3)
        is_probing = True
        for node in worker.ctx.health.due_probes(driver.clock.monotonic()):
            worker.probe(node)
        is_probing = False
        worker.ctx.retry_budget.earn()
        for phase in ("load", "save"):
            began = driver.clock.monotonic()
            try:
                if phase == "load":
                    session = worker.load(session_id) or worker.create()
                else:
                    session["n"] = n
                    worker.save(session)
                    session_id = session.id
            except SessionUnavailable:
                counts["unavailable"] += 1
                break
            finally:
                took_s = driver.clock.monotonic() - began
                log.append(f"{n}: {phase} took {took_s * 1000:.1f} ms")
                if took_s > settings.timeouts.request + MARGIN_S:
                    violations.append(f"i02_deadline: request {n}: its {phase} took {took_s:.3f} s")
        counts["requests"] += 1
    retries = worker.ctx.counters.snapshot().retries
    if retries > 10 + 0.1 * counts["requests"] + 1:
        violations.append(f"i16_stability: {retries} retries in {counts['requests']} requests")
    return violations, counts


def lifetimes(seed: int, log: list[str]) -> tuple[list[str], Counter[str]]:
    """I11: a session is there as long as it is used often enough and not too old, to 2 seconds, whoever serves it."""
    rng = random.Random(seed)
    driver = SimulatedDriver(["n1", "n2", "n3"], VirtualClock())
    max_inactive = rng.choice([30, 600, 86_400, 40 * 86_400])
    absolute = rng.choice([None, 5 * max_inactive])
    workers = [
        Worker(driver, make_settings(max_inactive=max_inactive, absolute_lifetime=absolute), rng.getrandbits(32))
        for _ in range(2)
    ]
    session_id = workers[0].store(n=0)
    began = used = driver.clock.monotonic()
    violations: list[str] = []
    counts: Counter[str] = Counter()
    for n in range(15):
        driver.clock.advance(rng.choice([0.05, 0.3, 0.6, 0.95, 0.99, 1.01, 1.1]) * max_inactive)
        now = driver.clock.monotonic()
        left_s = min(used + max_inactive, began + absolute if absolute else now + max_inactive) - now
        session = rng.choice(workers).load(session_id, expect_write=rng.random() < 0.5)
        counts["requests"] += 1
        log.append(f"{n}: {left_s:.1f} s left, {'found' if session is not None else 'none'}")
        if session is None:
            if left_s > 2:
                violations.append(f"i11_expiry: request {n}: gone {left_s:.1f} s too early")
            break
        if left_s < -2:
            violations.append(f"i11_expiry: request {n}: still there {-left_s:.1f} s too late")
        used = now
        if rng.random() < 0.5:
            session["n"] = n
            rng.choice(workers).save(session)
    return violations, counts


SEQUENTIAL: dict[str, Callable[[int, list[str]], tuple[list[str], Counter[str]]]] = {
    "deadlines": deadlines,
    "lifetimes": lifetimes,
}
