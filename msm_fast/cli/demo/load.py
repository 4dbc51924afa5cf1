"""The demo's customers: a steady load through a small load balancer, and a memory of what was acknowledged."""

from __future__ import annotations

import http.client
import json
import random
import re
import threading
import time
from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from msm_fast.cli.demo.processes import HOST
from msm_fast.cli.demo.report import Phase
from msm_fast.cli.demo.shop import CATALOGUE, MOST_OF_AN_ITEM

__all__ = ["Answer", "Balancer", "Load", "RequestFailed", "Shopper", "counters"]

ITEMS = tuple(CATALOGUE)
N_THREADS = 4
# Low enough that two processors have time left: the figures are to show the sessions' cost, not a queue's.
REQUESTS_PER_S = 200
ANSWER_LIMIT_S = 5.0
AVOID_S = 0.5


class Worker(Protocol):
    """Where a worker listens; the port changes when it is started again."""

    name: str
    port: int


class RequestFailed(Exception):
    """No worker gave the answer that was asked for; the message says why."""


@dataclass(frozen=True)
class Answer:
    """What came back for one request. n_retried: how many workers had refused it or broken off before."""

    content: dict[str, object]
    cookies: dict[str, str]
    in_worker_s: float
    n_retried: int


class Balancer:
    """Round robin over the workers, on connections that are kept; a refused or broken one goes to the next worker.

    Thread-safety: none; one for each thread.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = workers
        self._turn = 0
        self._avoid_until: dict[str, float] = {}
        self._connections: dict[tuple[str, int], http.client.HTTPConnection] = {}

    def send(self, method: str, path: str, cookies: dict[str, str], body: str = "") -> Answer:
        """Send a request that may safely be sent twice.

        Raises:  RequestFailed when each worker refused, or one was too slow or answered with an error.
        """
        why = "there is no worker"
        for n_retried, worker in enumerate(self._order()):
            try:
                return self._exchange(worker, method, path, cookies, body, n_retried)
            except (ConnectionError, http.client.HTTPException) as error:
                why = f"{worker.name}: {error!r}"
                self._avoid_until[worker.name] = time.monotonic() + AVOID_S
                self._drop(worker)
            except TimeoutError as error:
                self._drop(worker)
                raise RequestFailed(f"{method} {path}: {worker.name} did not answer in {ANSWER_LIMIT_S} s") from error
        raise RequestFailed(f"{method} {path}: no worker answered, {why}")

    def close(self) -> None:
        """Close every connection."""
        for connection in self._connections.values():
            connection.close()

    def _order(self) -> list[Worker]:
        """Return each worker once, the one whose turn it is first, those that failed a moment ago last."""
        self._turn += 1
        start = self._turn % len(self._workers)
        workers = [*self._workers[start:], *self._workers[:start]]
        now = time.monotonic()
        return sorted(workers, key=lambda worker: self._avoid_until.get(worker.name, 0.0) > now)

    def _exchange(
        self, worker: Worker, method: str, path: str, cookies: dict[str, str], body: str, n_retried: int
    ) -> Answer:
        key = (worker.name, worker.port)
        connection = self._connections.get(key)
        if connection is None:
            connection = http.client.HTTPConnection(HOST, worker.port, timeout=ANSWER_LIMIT_S)
            self._connections[key] = connection
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
        connection.request(method, path, body.encode() or None, headers)
        response = connection.getresponse()
        content = response.read()
        if response.status != 200:
            text = content[:200].decode("utf-8", "replace")
            raise RequestFailed(f"{method} {path}: {worker.name} answered {response.status} {text}")
        timing = re.search(r"app;dur=([0-9.]+)", response.getheader("Server-Timing", ""))
        return Answer(
            content=json.loads(content),
            cookies=_set_cookies(response),
            in_worker_s=float(timing[1]) / 1000 if timing else 0.0,
            n_retried=n_retried,
        )

    def _drop(self, worker: Worker) -> None:
        connection = self._connections.pop((worker.name, worker.port), None)
        if connection is not None:
            connection.close()


def _set_cookies(response: http.client.HTTPResponse) -> dict[str, str]:
    cookies = {}
    for header in response.headers.get_all("Set-Cookie", []):
        name, _, value = header.partition(";")[0].partition("=")
        cookies[name.strip()] = value.strip()
    return cookies


@dataclass
class Shopper:
    """One customer: the cookies, the cart as acknowledged, and quantities whose requests were not answered."""

    index: int
    cookies: dict[str, str] = field(default_factory=dict)
    node: str = ""
    cart: dict[str, int] = field(default_factory=dict)
    unsure: dict[str, set[int]] = field(default_factory=dict)

    def difference(self, cart: dict[str, int]) -> str | None:
        """Say how cart differs from what it may be; None: it does not.

        After a request that was not answered the old quantity and the new one are both right.
        """
        for item in sorted(self.cart.keys() | self.unsure.keys() | cart.keys()):
            accepted = {self.cart.get(item, 0), *self.unsure.get(item, ())}
            if cart.get(item, 0) not in accepted:
                expected = " or ".join(map(str, sorted(accepted)))
                return f"{item} is {cart.get(item, 0)} and not {expected}"
        return None


class Load:
    """Threads that go round their shoppers: sometimes change the cart, always read it and compare."""

    def __init__(self, workers: Sequence[Worker], n_sessions: int) -> None:
        self.shoppers = [Shopper(index) for index in range(n_sessions)]
        self.phase = Phase("")
        self.n_created = 0
        self._workers = workers
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._executor = ThreadPoolExecutor(N_THREADS)
        self._threads: list[Future[None]] = []

    def start(self, phase: Phase) -> None:
        """Start the load: each shopper fills a cart, then the rounds go on until stop()."""
        self.phase = phase
        self._threads = [
            self._executor.submit(self._run, self.shoppers[n::N_THREADS], random.Random(n)) for n in range(N_THREADS)
        ]

    def enter(self, phase: Phase) -> None:
        """Record in phase from now on, also what has begun before and ends after this."""
        with self._lock:
            self.phase = phase

    def is_checked(self) -> bool:
        """Whether every session has been read and compared in this phase.

        Raises:  what has ended a thread of the load, if anything has.
        """
        for thread in self._threads:
            if thread.done():
                thread.result()
        with self._lock:
            return len(self.phase.intact) + len(self.phase.lost) >= len(self.shoppers)

    def nodes(self) -> dict[str, int]:
        """Return how many sessions each node holds, by the answers last seen."""
        counts: dict[str, int] = {}
        for shopper in self.shoppers:
            counts[shopper.node] = counts.get(shopper.node, 0) + 1
        return dict(sorted(counts.items()))

    def stop(self) -> None:
        """Let the requests under way end, and the threads with them. Idempotent."""
        self._stop.set()
        self._executor.shutdown()

    def _run(self, shoppers: Collection[Shopper], chance: random.Random) -> None:
        balancer = Balancer(self._workers)
        try:
            for shopper in shoppers:
                for item in chance.sample(ITEMS, 2):
                    self._put(balancer, shopper, item, chance.randint(1, MOST_OF_AN_ITEM))
                with self._lock:
                    self.n_created += 1
            due = time.monotonic()
            while shoppers and not self._stop.is_set():
                for shopper in shoppers:
                    if chance.random() < 0.5:
                        due = self._pace(due)
                        self._put(balancer, shopper, chance.choice(ITEMS), chance.randint(0, MOST_OF_AN_ITEM))
                    due = self._pace(due)
                    self._request(balancer, shopper, "GET", "/cart")
        finally:
            balancer.close()

    def _pace(self, due: float) -> float:
        """Wait until due and return when the next request is; what is late is not caught up in a burst."""
        now = time.monotonic()
        if due > now:
            self._stop.wait(due - now)
        return max(due, now) + N_THREADS / REQUESTS_PER_S

    def _put(self, balancer: Balancer, shopper: Shopper, item: str, quantity: int) -> None:
        if self._stop.is_set():
            return
        shopper.unsure.setdefault(item, set()).add(quantity)
        if self._request(balancer, shopper, "PUT", f"/cart/{item}", str(quantity)):
            del shopper.unsure[item]

    def _request(self, balancer: Balancer, shopper: Shopper, method: str, path: str, body: str = "") -> bool:
        """Make one request, compare the cart that comes back, record it; return whether it was answered."""
        if self._stop.is_set():
            return False
        phase_at_start = self.phase
        began = time.perf_counter()
        try:
            answer = balancer.send(method, path, shopper.cookies, body)
        except RequestFailed as failure:
            with self._lock:
                self.phase.failures.append(str(failure))
            return False
        elapsed_s = time.perf_counter() - began
        shopper.cookies.update(answer.cookies)
        shopper.node = str(answer.content["node"])
        cart = answer.content["cart"]
        assert isinstance(cart, dict)
        difference = shopper.difference(cart)
        # From here on what there is counts, so that one loss is not counted in every later phase.
        shopper.cart = cart
        with self._lock:
            self.phase.latencies_s.append(elapsed_s)
            self.phase.in_worker_s.append(answer.in_worker_s)
            self.phase.n_retried += answer.n_retried > 0
            if difference is not None:
                self.phase.lost.setdefault(shopper.index, difference)
                self.phase.intact.discard(shopper.index)
            elif phase_at_start is self.phase and method == "GET" and shopper.index not in self.phase.lost:
                self.phase.intact.add(shopper.index)
        return True


def counters(workers: Sequence[Worker]) -> dict[int, tuple[int, int]]:
    """Return the requests and round trips that each worker has counted, by its process id; a dead one is left out."""
    counted = {}
    for worker in workers:
        balancer = Balancer([worker])
        try:
            content = balancer.send("GET", "/statistics", {}).content
            counted[int(str(content["pid"]))] = (
                int(str(content["requests"])),
                int(str(content["round_trips"])),
            )
        except RequestFailed:
            continue
        finally:
            balancer.close()
    return counted
