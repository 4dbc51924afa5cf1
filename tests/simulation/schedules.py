"""Seeded schedules: requests of one browser, over several workers, interleaved batch by batch while a node fails.

Everything in a schedule comes from its seed, so a failing one can be run again alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from msm_fast import SessionUnavailable
from msm_fast._core import wire
from msm_fast._core.session_id import SessionId
from msm_fast.engine.effects import Batch, Effect, Exchange, FailureKind, NodeFailure, Outcome, Replies
from msm_fast.engine.loading import load
from msm_fast.engine.saving import save
from msm_fast.session import Session
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker, make_settings

Request = Generator[Effect, Any, None]

REQUESTS = 12
AT_ONCE = 3
WORKERS = 3

FAULTS: list[FailureKind | None] = [None, None, "refused", "reset", "timeout", "protocol"]


@dataclass
class Browser:
    """One cookie jar, and what its user was told. acknowledged: per attribute that was stored, the step it was at."""

    cookie: str
    acknowledged: dict[str, int] = field(default_factory=dict)
    logout_began: bool = False
    logout_ended_at: int | None = None

    def acknowledged_before(self, step: int) -> set[str]:
        return {name for name, at in self.acknowledged.items() if at < step}


@dataclass
class Running:
    """A request that waits for the batches of an exchange, each of which is delivered at a moment of its own."""

    request: Request
    batches: list[Batch] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)


class Schedule:
    """One run.

    victim: the only node that fails, in every way it can: refusing, resetting, hanging and carrying out what it was
    sent much later, dying and coming back empty. What was acknowledged must survive all of it.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = VirtualClock()
        self.driver = SimulatedDriver(["n1", "n2", "n3"], self.clock)
        self.workers = [Worker(self.driver, make_settings(), self.rng.getrandbits(32)) for _ in range(WORKERS)]
        self.victim = self.driver.nodes[self.rng.choice(["n1", "n2", "n3"])]
        self.victim_id = next(name for name, node in self.driver.nodes.items() if node is self.victim)
        self.browser = Browser(self._first_session())
        self.logout = self.rng.randrange(REQUESTS) if self.rng.random() < 0.3 else None
        self.zombies: list[bytes] = []
        self.log: list[str] = []
        self.steps = 0

    def run(self) -> None:
        """Run all requests to their end, then let the node heal."""
        waiting = [self._request(n) for n in range(REQUESTS)]
        running: list[Running] = []
        while waiting or running:
            self.steps += 1
            self.clock.advance(self.rng.random() * 0.05)
            if self.rng.random() < 0.15:
                self._change_fault()
            if self.zombies and self.victim.fault is None and self.rng.random() < 0.3:
                self.victim.server.handle(self.zombies.pop(0))
            if waiting and (not running or (len(running) < AT_ONCE and self.rng.random() < 0.4)):
                self._resume(Running(waiting.pop(0)), None, running)
            else:
                self._deliver_one(running)
        self.victim.fault = None
        for data in self.zombies:
            self.victim.server.handle(data)
        self._probe()

    def read(self, *, without_victim: bool) -> dict[str, Any] | None:
        """Return what a worker reads that was not there before, or None for no session."""
        self.victim.fault = "refused" if without_victim else None
        session = Worker(self.driver, make_settings(), seed=1).load(self.browser.cookie)
        return None if session is None else dict(session)

    def _first_session(self) -> str:
        """Store a session under an id that comes from the seed, as its places come from the id."""
        worker = self.workers[0]
        session = worker.create(start=True)
        plain = f"{self.rng.getrandbits(128):032x}"
        home = worker.ctx.topology.ranked(plain, lambda node: True)[0]
        session.state.session_id = SessionId(f"{plain}-{home}")
        worker.save(session)
        return session.id

    # -- requests

    def _request(self, n: int) -> Request:
        ctx = self.rng.choice(self.workers).ctx
        began_at, presented = self.steps, self.browser.cookie
        session_id = SessionId.parse(presented)
        assert session_id is not None
        try:
            state = yield from load(ctx, session_id, self.rng.random() < 0.5)
            if state is None:
                assert self.browser.logout_began, f"request {n} found no session"
                self.log.append(f"{self.steps}: request {n} finds no session")
                return
            ended_at = self.browser.logout_ended_at
            assert ended_at is None or began_at <= ended_at, f"request {n} was served a session that had been ended"
            missing = self.browser.acknowledged_before(began_at) - set(state.attributes)
            assert not missing or self.browser.logout_began, f"request {n} does not see {missing}"
            session = Session(None, ctx.new_state, presented, state)
            if n == self.logout:
                self.browser.logout_began = True
                session.invalidate()
            else:
                session[f"a{n}"] = n
            result = yield from save(ctx, session.state)
            self.log.append(f"{self.steps}: request {n} is {result}")
            if n == self.logout:
                self.browser.logout_ended_at = self.steps
            elif result.status in ("stored", "merged"):
                self.browser.acknowledged[f"a{n}"] = self.steps
                if session.id_changed:
                    self.browser.cookie = session.id
            else:
                assert self.browser.logout_began, f"request {n} was told {result}"
        except SessionUnavailable as error:
            self.log.append(f"{self.steps}: request {n}: {error}")

    def _resume(self, run: Running, outcomes: list[Outcome] | None, running: list[Running]) -> None:
        """Let a request go on to its next exchange, or its end."""
        while True:
            try:
                effect = run.request.send(outcomes)
            except StopIteration:
                return
            if isinstance(effect, Exchange):
                running.append(Running(run.request, list(effect.batches)))
                return
            outcomes = None

    def _deliver_one(self, running: list[Running]) -> None:
        run = self.rng.choice(running)
        i = self.rng.choice([i for i in range(len(run.batches)) if i not in run.outcomes])
        run.outcomes[i] = self._deliver(run.batches[i])
        if len(run.outcomes) == len(run.batches):
            running.remove(run)
            self._resume(run, [run.outcomes[i] for i in range(len(run.batches))], running)

    def _deliver(self, batch: Batch) -> Outcome:
        outcome = self._answer(batch)
        answer = f"{outcome.kind}" if isinstance(outcome, NodeFailure) else [_summary(reply) for reply in outcome]
        self.log.append(
            f"{self.steps}:    {batch.node} {[_summary(command) for command in batch.commands]} -> {answer}"
        )
        return outcome

    def _answer(self, batch: Batch) -> Outcome:
        node = self.driver.nodes[batch.node]
        data = wire.encode(batch.commands, 1)
        fault = node.fault
        if fault is None and batch.life not in (None, node.server.life):
            return NodeFailure("restarted", False, "simulated: restarted")
        if fault is None:
            parser = wire.ReplyParser(batch.commands, 1)
            assert parser.feed(node.server.handle(data))
            return Replies(parser.replies, node.server.life, node.server.compares)
        if batch.life not in (None, node.server.life):
            return NodeFailure(fault, False, "simulated: no new connection")
        if fault == "timeout":
            self.zombies.append(data)
        elif fault != "refused" and self.rng.random() < 0.5:
            node.server.handle(data)  # the answer was lost, not the request
        return NodeFailure(fault, fault != "refused", f"simulated: {fault}")

    # -- faults

    def _change_fault(self) -> None:
        self.victim.fault = self.rng.choice(FAULTS)
        if self.victim.fault == "refused" and self.rng.random() < 0.5:
            self.victim.server.restart()
            self.zombies.clear()
        self.log.append(f"{self.steps}: {self.victim_id} {self.victim.fault or 'heals'}")
        if self.victim.fault is None:
            self._probe()

    def _probe(self) -> None:
        """Let each worker's prober notice: until then those that never missed the node may read what it has."""
        for worker in self.workers:
            for node in worker.ctx.health.down():
                worker.probe(node)


def _summary(message: wire.Command | wire.Reply) -> str:
    """Return what matters of a command or a reply: a write's conditions and record, a reply's copy."""
    if isinstance(message, wire.Command):
        head, _, value = wire.encode([message], 1).partition(b"\r\n")
        words = [word for word in head.decode().split()[2:] if word[0] in "CMvF"]
        return " ".join([message.verb, *words, _record(value)])
    return f"{message.status} c{message.cas} f{message.client_flags} {_record(message.value or b'')}".strip()


def _record(data: bytes) -> str:
    """Return the generation and the attribute names in a record."""
    if len(data) < 48:
        return ""
    return f"g{int.from_bytes(data[8:16], 'little')} {sorted(set(re.findall(rb'a[0-9]+', data[48:])))}"
