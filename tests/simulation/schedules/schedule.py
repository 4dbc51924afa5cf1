"""Requests of some browsers, over several workers, interleaved batch by batch while nodes fail."""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from msm_fast import ConflictError, LockTimeout, NearCacheSettings, SessionUnavailable
from msm_fast._core.session_id import SessionId
from msm_fast.engine.behind import Job
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Batch, Effect, Exchange, Outcome
from msm_fast.engine.exchanging import probe
from msm_fast.engine.reconnecting import reconnect
from msm_fast.engine.together import together
from msm_fast.local_store import MemoryStore
from msm_fast.session import Session
from msm_fast.settings import Settings
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.schedules.history import SET_BY_MANY, FinalRead, History, Request, WorkerAtEnd
from tests.simulation.schedules.network import Network
from tests.simulation.schedules.profiles import SEALED, Profile
from tests.simulation.worker import Worker, make_settings

Running = Generator[Effect, Any, None]

NODES = ("n1", "n2", "n3")
AT_ONCE = 3
LONGEST_END = 100_000
LONGEST_LEAP_S = 20.0
WORKERS = 3
LONGEST_HEALING_S = 10.0
RETRY_S = 0.2


@dataclass
class Browser:
    """One cookie jar. is_exclusive: a request that must be alone runs, or the browser's story has ended."""

    number: int
    cookie: str
    is_exclusive: bool = False
    n_running: int = 0


@dataclass
class Waiting:
    """A flow that waits for the batches of an exchange, each of which is delivered at a moment of its own."""

    worker: int
    flow: Running
    is_request: bool
    batches: list[Batch] = field(default_factory=list)
    outcomes: dict[int, Outcome] = field(default_factory=dict)


class Schedule:
    """One run, all of it from its seed. What was acknowledged must survive whatever befalls the victims."""

    def __init__(self, seed: int, profile: Profile) -> None:
        self.profile = profile
        self.rng = random.Random(seed)
        self.clock = VirtualClock()
        self.driver = SimulatedDriver(list(NODES), self.clock)
        for node in self.driver.nodes.values():
            node.server.version = profile.version
        self.history = History()
        self.shared = MemoryStore(NearCacheSettings(), self.clock.monotonic) if profile.shares_local_store else None
        self.workers = [self._new_worker(i) for i in range(WORKERS)]
        self.are_busy: set[int] = set()
        """Workers that do what requests have left behind."""
        self.network = Network(self.driver, self.rng, profile, self._note)
        self.browsers = [Browser(i, self._first_session(i)) for i in range(profile.n_browsers)]
        self.logout = self.rng.randrange(profile.n_requests) if self.rng.random() < profile.logout else None
        self.waiting: list[Waiting] = []
        self.drained = self.rng.choice(NODES) if profile.drains else ""
        self.probing: set[int] = set()
        """Workers that are asking nodes whether they are back, or reconnecting."""
        self.step = 0

    def run(self) -> History:
        """Run all requests to their end, then let everything heal, and read what there is."""
        n_started = 0
        waiting = self.waiting
        while n_started < self.profile.n_requests or waiting:
            self.step += 1
            self.clock.advance(self.rng.random() * 0.05)
            if self.profile.leaps and self.rng.random() < self.profile.leaps:
                self.clock.advance(self.rng.random() * LONGEST_LEAP_S)
            self._probe_where_due()
            if self.rng.random() < 0.15:
                self.network.strike()
            self.network.let_zombies_act()
            self._work_behind()
            self._break_off()
            self._drain()
            ready = [b for b in self.browsers if not b.is_exclusive]
            is_time = not waiting or (len(waiting) < AT_ONCE and self.rng.random() < 0.4)
            if n_started < self.profile.n_requests and ready and is_time:
                browser = self.rng.choice(ready)
                number = self._choose_worker(browser)
                self._resume(number, self._request(n_started, browser, number), is_request=True)
                n_started += 1
            elif waiting:
                self._deliver_one()
            else:
                break  # every browser's story has ended
        self._heal()
        self._read_finally()
        return self.history

    # -- workers

    def _new_worker(self, number: int) -> Worker:
        return Worker(self.driver, self._settings(number), self.rng.getrandbits(32), self.shared)

    def _settings(self, number: int, **settings: Any) -> Settings:
        own = self.profile.own_settings[number % len(self.profile.own_settings)]
        return make_settings(**settings, **self.profile.settings, **own)

    def _choose_worker(self, browser: Browser) -> int:
        return self.rng.randrange(WORKERS)

    def _work_behind(self) -> None:
        """Let the workers begin what requests have left behind, and perhaps one die."""
        for number, worker in enumerate(self.workers):
            is_idle = self.writes_behind and number not in self.are_busy and self.rng.random() < 0.4
            jobs = worker.ctx.behind.take(self.clock.monotonic()) if is_idle else []
            if jobs:
                self.are_busy.add(number)
                self._resume(number, self._do(number, worker, jobs))
        if (self.writes_behind or self.profile.deaths) and self.rng.random() < self.profile.deaths:
            self._let_die(self.rng.randrange(WORKERS))

    @property
    def writes_behind(self) -> bool:
        """Whether requests leave behind what is to be written; otherwise only what is to be touched, which can wait."""
        return bool(self.profile.settings.get("backup") == "async")

    def _do(self, number: int, worker: Worker, jobs: list[Job]) -> Running:
        self._note(f"worker {number} writes behind")
        outcomes = yield from together([job.run() for job in jobs])
        for job, outcome in zip(jobs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            worker.ctx.behind.finish(job, None if outcome else self.clock.monotonic() + RETRY_S)
            self._note(f"worker {number} has {'' if outcome else 'not '}written behind")
        self.are_busy.discard(number)

    def _let_die(self, number: int) -> None:
        """Let a worker vanish in the midst of what it does; another takes its place."""
        self._note(f"worker {number} dies")
        for run in [run for run in self.waiting if run.worker == number]:
            self.waiting.remove(run)
            run.flow.close()
        self.are_busy.discard(number)
        self.workers[number] = self._new_worker(number)

    def _break_off(self) -> None:
        """Let a request end wherever it is, as one does whose client has gone."""
        if self.profile.cancels and self.rng.random() < self.profile.cancels:
            requests = [run for run in self.waiting if run.is_request]
            if requests:
                run = self.rng.choice(requests)
                self.waiting.remove(run)
                run.flow.close()

    def _drain(self) -> None:
        """Let one worker after the other be told that a node drains."""
        if self.profile.drains and self.rng.random() < self.profile.drains:
            self._tell_of_drain(self.rng.choice(self.workers))

    def _tell_of_drain(self, worker: Worker) -> None:
        if self.drained not in worker.ctx.topology.draining:
            self._note(f"worker {self.workers.index(worker)} drains {self.drained}")
            worker.ctx.change_topology(worker.ctx.settings, [self.drained])

    # -- requests

    def _first_session(self, browser: int) -> str:
        """Store a session under an id that comes from the seed, as its places come from the id."""
        worker = self.workers[0]
        session = worker.create(owner=browser)
        plain = f"{self.rng.getrandbits(128):032x}"
        home = self.rng.choice(NODES) if self.profile.is_outage else worker.ctx.topology.first(plain)
        session_id = SessionId(plain).with_node(home)  # in an outage it may have moved there before
        session.state.session_id = session_id.with_route(worker.ctx.settings.route)
        worker.save(session)
        worker.catch_up()
        return session.id

    def _request(self, n: int, browser: Browser, number: int) -> Running:
        worker = self.workers[number]
        request = Request(n, browser.number, number, browser.cookie, self.step, began_s=self.clock.monotonic())
        if n == self.logout:
            request.action = "logout"
        elif self.profile.reads and self.rng.random() < self.profile.reads:
            request.action = "read"
        elif self.rng.random() < self.profile.rotate and not browser.n_running:
            request.action, browser.is_exclusive = "rotate", True
        self.history.requests.append(request)
        suffix = browser.cookie[32:]
        self._note(f"request {n} of browser {browser.number} begins, worker {number}, id {suffix}: {request.action}")
        browser.n_running += 1
        session_id = SessionId.parse(request.presented)
        assert session_id is not None
        try:
            state = yield from worker.find(session_id, self.rng.random() < 0.5)
            if state is None:
                request.outcome = "none"
                return
            request.found = {name: value for name, value in state.attributes.items() if name not in SET_BY_MANY}
            request.is_local = state.local_kind is not None
            session = Session(None, worker.ctx.new_state, request.presented, state)
            self._use(request, session)
            result = yield from worker.keep(session.state)
            request.outcome, request.status = "ok", result.status
            is_kept_by_one = self.writes_behind and self.profile.is_calm  # a home that nothing befalls
            request.n_copies = 1 + len(result.backups) + is_kept_by_one
            request.is_local = request.is_local or result.status == "local"
            request.cookie = session.id
            self._take_cookie(browser, request)
        except SessionUnavailable:
            request.outcome = "unavailable"
        except LockTimeout:
            request.outcome = "locked out"
        except ConflictError:
            request.outcome = "conflict"
        finally:
            request.ended, request.ended_s = self.step, self.clock.monotonic()
            browser.n_running -= 1
            if request.action == "rotate":
                browser.is_exclusive = request.outcome != "ok"  # else nobody knows which of its ids is alive
            self._note(f"request {n} of browser {browser.number}: {request.outcome} {request.status}")

    def _use(self, request: Request, session: Session) -> None:
        if request.action == "logout":
            session.invalidate()
            return
        if request.action == "read":
            return
        if request.action == "rotate":
            session.rotate_id()
        for name in SET_BY_MANY:
            if self.profile.sets and self.rng.random() < self.profile.sets:
                self._set(request, session, name)
        request.wrote = {f"a{request.n}": request.n}
        session.update(request.wrote)

    def _set(self, request: Request, session: Session, name: str) -> None:
        if name != "shared":
            request.set[name] = 2000 + request.n
            setattr(session, name, 2000 + request.n)
        elif self.rng.random() < 0.5:
            request.set[name] = session[name] = request.n
        elif session.pop(name, None) is not None:
            request.set[name] = None

    def _take_cookie(self, browser: Browser, request: Request) -> None:
        """Keep the id that the response set; one that is as the request presented it is not sent again."""
        if request.cookie != request.presented and (request.is_saved or request.action == "rotate"):
            browser.cookie = request.cookie

    def _resume(
        self, worker: int, flow: Running, result: list[Outcome] | bool | None = None, *, is_request: bool = False
    ) -> None:
        """Let a worker's flow begin, or go on to its next effect or its end."""
        try:
            effect = flow.send(result)
        except StopIteration:
            return
        batches = list(effect.batches) if isinstance(effect, Exchange) else []
        self.waiting.append(Waiting(worker, flow, is_request, batches))

    def _deliver_all(self) -> None:
        """Let all that has begun end."""
        for _ in range(LONGEST_END):
            if not self.waiting:
                return
            self._deliver_one()
        raise AssertionError("what has begun does not end")

    def _deliver_one(self) -> None:
        """Let one batch be answered, or one sleep end."""
        run = self.rng.choice(self.waiting)
        if not run.batches:
            self.waiting.remove(run)
            self._resume(run.worker, run.flow, self.rng.random() < 0.995, is_request=run.is_request)
            return
        i = self.rng.choice([i for i in range(len(run.batches)) if i not in run.outcomes])
        run.outcomes[i] = self.network.deliver(run.batches[i])
        if len(run.outcomes) == len(run.batches):
            self.waiting.remove(run)
            outcomes = [run.outcomes[i] for i in range(len(run.batches))]
            self._resume(run.worker, run.flow, outcomes, is_request=run.is_request)

    # -- healing

    def _probe_where_due(self) -> None:
        """Do what each worker's prober does."""
        for number, worker in enumerate(self.workers):
            due = [] if number in self.probing else worker.ctx.health.due_probes(self.clock.monotonic())
            if due:
                self._resume(number, self._probe(number, worker.ctx, due))

    def _probe(self, number: int, ctx: Context, nodes: list[str]) -> Running:
        """Ask nodes whether they are back, and take up the cluster again, while requests go on."""
        self.probing.add(number)
        try:
            for node in nodes:
                yield from probe(ctx, node)
                if ctx.distribution.can_reconnect:
                    yield from reconnect(ctx)
        finally:
            self.probing.discard(number)

    def _heal(self) -> None:
        """Let all faults end, and wait until every worker is as it should be."""
        self.network.heal()
        if self.drained:
            for worker in self.workers:
                self._tell_of_drain(worker)
        healed = self.clock.monotonic()
        while self.clock.monotonic() - healed < LONGEST_HEALING_S:
            if all(worker.ctx.state().value == "distributed" for worker in self.workers):
                break
            self.clock.advance(0.05)
            self._probe_where_due()
            self._deliver_all()
        took_s = self.clock.monotonic() - healed
        self._settle()
        for worker in self.workers:
            state, n_local = worker.ctx.state().value, len(worker.ctx.local)
            self.history.workers.append(WorkerAtEnd(state, n_local, worker.ctx.essentials.near_bytes, took_s))

    def _settle(self) -> None:
        """Let what was left behind be written, and what was kept for a moment be stored by a request of its session."""
        while self.writes_behind and any(len(worker.ctx.behind) for worker in self.workers):
            self._work_behind()
            self._deliver_all()
        if self.profile.can_be_read_at_once:
            for number, worker in enumerate(self.workers):
                self._read_all(worker, f"by worker {number}")
        for worker in self.workers:
            for browser in self.browsers:
                session = worker.load(browser.cookie)
                if session is not None:
                    worker.save(session)

    def _read_finally(self) -> None:
        """Read each browser's session with everything up, and without each node that failed alone."""
        lone_victim = self.network.victims if len(self.network.victims) == 1 else []
        settings = self._settings(0)
        self.history.max_inactive_s = settings.max_inactive or 0
        settings = make_settings(**{name: getattr(settings, name) for name in SEALED})
        for without in [None, *lone_victim]:
            if without is not None:
                self.driver.nodes[without].fault = "refused"
            among = f"without {without}" if without else "with every node"
            self._read_all(Worker(self.driver, settings, seed=1), among)

    def _read_all(self, worker: Worker, among: str) -> None:
        """Let a worker read each browser's session, and leave it as it is."""
        for browser in self.browsers:
            if browser.is_exclusive:
                continue
            session = worker.load(browser.cookie)
            found = None if session is None else dict(session)
            values = {name: getattr(session, name, (found or {}).get(name)) for name in SET_BY_MANY}
            self.history.finals.append(FinalRead(browser.number, among, found, values))

    def _note(self, what: str) -> None:
        self.history.log.append(f"{self.step}: {what}")
