"""Run the soak: `python -m tests.soak --minutes 10`; `make soak MINUTES=10`.

Browsers send requests to several workers while something breaks every few seconds. Each browser checks each answer
against what was acknowledged to it. The exit status is 1 if any check failed.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from tests.soak.browsers import ACKNOWLEDGED, Browser
from tests.soak.cluster import LONGEST_PROBE_INTERVAL_S, Cluster, Fault, WorkerProcess
from tests.soak.messages import Answer, Request
from tests.soak.report import Report, Sample

BUDGET_S = 0.25
N_CLIENTS = 4
BROWSERS_PER_CLIENT = 15
PAUSE_S = 0.008
"""Between two turns of a client: the machine is to have time left, or the figures show a queue."""


class Client:
    """A thread that plays some browsers in turn, each request at any worker, or at the one that its cookie names."""

    def __init__(self, soak: Soak, seed: int) -> None:
        self._soak = soak
        self._rng = random.Random(seed)
        self.browsers = [Browser(seed * 1000 + i, random.Random(seed * 1000 + i)) for i in range(BROWSERS_PER_CLIENT)]
        self._lines: list[dict[str, Connection]] = [{}, {}]
        self._side = ThreadPoolExecutor(1)

    def run(self) -> None:
        while not self._soak.is_over.is_set():
            browser = self._rng.choice(self.browsers)
            requests = browser.next_requests()
            second: Future[Answer | None] | None = None
            workers = [self._balance(request.cookie) for request in requests]
            if len(requests) > 1:
                if self._soak.is_sticky:
                    workers[1] = workers[0]
                second = self._side.submit(self._send, requests[1], workers[1], self._lines[1])
            answers = [self._send(requests[0], workers[0], self._lines[0])]
            if second is not None:
                answers.append(second.result())
            n_before = len(browser.violations)
            at = f"{self._soak.now():.1f} s, {self._soak.last_fault}: {' and '.join(map(_describe, requests, workers))}"
            browser.take(requests, answers, is_settled=self._soak.is_settled(), at=at)
            for i in range(n_before, len(browser.violations)):
                browser.violations[i] += f"; {at}; {self._soak.cluster.describe_copies(requests[0].cookie)}"
            time.sleep(PAUSE_S)
        self._side.shutdown()

    def _send(self, request: Request, worker: WorkerProcess, lines: dict[str, Connection]) -> Answer | None:
        """Return the answer of a worker, or None if it died before it gave one."""
        try:
            line = lines.get(worker.name) or lines.setdefault(worker.name, worker.connect())
            line.send(request)
            answer: Answer = line.recv()
        except (OSError, EOFError):
            lines.pop(worker.name, None)
            return None
        self._soak.note(answer)
        return answer

    def _balance(self, cookie: str | None) -> WorkerProcess:
        """Return the worker that the cookie names if it lives, else any that does, as a balancer does."""
        alive = [worker for worker in self._soak.cluster.workers if worker.is_alive] or self._soak.cluster.workers
        named = [worker for worker in alive if cookie is not None and cookie.endswith(f".{worker.name}")]
        return self._rng.choice(named or alive)


def _describe(request: Request, worker: WorkerProcess) -> str:
    """Return what was asked of which worker, without the id."""
    suffix = (request.cookie or "")[32:]
    return f"{request.action or request.method} {request.changes or ''} {suffix} at {worker.name}"


class Soak:
    def __init__(self, cluster: Cluster, duration_s: float, seed: int, *, is_sticky: bool) -> None:
        self.cluster = cluster
        self.is_sticky = is_sticky
        self.is_over = threading.Event()
        self.report = Report(duration_s, BUDGET_S)
        self._rng = random.Random(seed)
        self._started = time.monotonic()
        self._lock = threading.Lock()
        self._last_fault_s = 0.0
        self.last_fault = "before any fault"
        self._clients = [Client(self, seed * 100 + i) for i in range(1, N_CLIENTS + 1)]

    def note(self, answer: Answer) -> None:
        with self._lock:
            self.report.samples.append(Sample(self.now(), answer.took_s, answer.is_local))
            self.report.statuses[answer.error or answer.status] += 1
            self.report.n_without_backup += answer.status in ACKNOWLEDGED and answer.n_copies < 2

    def is_settled(self) -> bool:
        """Whether nothing has broken for so long that every node has been told of every logout that it missed."""
        return self.now() - self._last_fault_s > LONGEST_PROBE_INTERVAL_S + 1

    def run(self) -> Report:
        threads = [threading.Thread(target=client.run) for client in self._clients]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1)
            while self.now() < self.report.duration_s - 4:
                self._strike(self.cluster.random_fault(self._rng))
            time.sleep(max(self.report.duration_s - self.now(), 0))
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join()
        self._measure()
        for client in self._clients:
            for browser in client.browsers:
                self.report.violations += browser.violations
                self.report.near_after_logout += browser.near_after_logout
                self.report.not_told_yet += browser.not_told_yet
        return self.report

    def _strike(self, fault: Fault) -> None:
        """Let one thing break and heal, and wait until its harm is mended: one fault at a time is what is promised."""
        began = self._last_fault_s = self.now()
        self.last_fault = f"{fault.name} at {began:.1f} s"
        fault.begin()
        self._last_fault_s = began + 3600
        time.sleep(self._rng.uniform(0.5, 3.0))
        fault.end()
        healed = self._last_fault_s = self.now()
        self.report.faults.append((began, healed, fault.name))
        self._measure_until_normal(healed)
        self._wait_for_writes()
        time.sleep(self._rng.uniform(0.2, 1.5))

    def _measure_until_normal(self, healed: float) -> None:
        while not all(measured["state"] == "distributed" for measured in self._measure()):
            if self.now() - healed > 10 * LONGEST_PROBE_INTERVAL_S:
                self.report.violations.append("the workers did not return to normal")
                return
            time.sleep(0.05)
        self.report.back_to_normal_s.append(self.now() - healed)

    def _wait_for_writes(self) -> None:
        """Wait until each session was stored once more, and so has all its copies again, whatever broke before."""
        browsers = [browser for client in self._clients for browser in client.browsers]
        for browser in browsers:
            browser.writes_since_heal = 0
        while any(browser.writes_since_heal < 2 for browser in browsers) and self.now() < self.report.duration_s:
            time.sleep(0.05)

    def _measure(self) -> list[dict[str, object]]:
        measured = [worker.measure() for worker in self.cluster.workers]
        self.report.resources += measured
        self.report.statistics = sum((Counter(m["statistics"]) for m in measured), Counter())
        return measured

    def now(self) -> float:
        """Return the seconds since the start."""
        return time.monotonic() - self._started


def run(duration_s: float, seed: int, *, is_sticky: bool, n_workers: int = 3) -> Report:
    """Run the soak and report. is_sticky: sessions live in their workers, and are written before a request ends."""
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder), n_workers, {"sticky": True, "backup": "sync"} if is_sticky else {})
        try:
            return Soak(cluster, duration_s, seed, is_sticky=is_sticky).run()
        finally:
            cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10_000))
    parser.add_argument("--sticky", action="store_true")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.minutes} minutes{', sticky' * options.sticky}", flush=True)
    report = run(options.minutes * 60, options.seed, is_sticky=options.sticky)
    print(report.table(), report.timeline(), sep="\n\n")
    for violation in report.violations[:20]:
        print(violation)
    return 1 if report.violations or report.n_late else 0


if __name__ == "__main__":
    sys.exit(main())
