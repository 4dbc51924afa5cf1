"""One run: every contender is checked, counted, and put under load in turns."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from bench.whole_requests.contenders import BASE, Configuration, Framework
from bench.whole_requests.content import SIZES
from bench.whole_requests.load import run_wrk
from bench.whole_requests.outcome import METHODS, WRITE, Case, Outcome, Sample
from bench.whole_requests.server import Server, WrongAnswer, serving
from bench.whole_requests.wire import wired
from tests.memcached import Memcached

N_SESSIONS = 16
N_COUNTED = 5
_MEMORY = ("-m", "512")
_NO_COOKIES = ["visitor=1"]

Cookies = dict[tuple[str, str], list[str]]
"""By contender and size."""


class Plan(NamedTuple):
    """What to measure: turns of so many seconds, of sessions of these sizes. n_turns: 0 only checks and counts."""

    sizes: list[str]
    n_turns: int
    seconds: int
    say: Callable[[str], None]


def measure(frameworks: Iterable[Framework], plan: Plan) -> Outcome:
    """Return what the contenders of frameworks have done. Raises: WrongAnswer, LoadError."""
    outcome = Outcome()
    for framework in frameworks:
        contenders = [name for name in framework.contenders if _can_take_part(framework, name, outcome)]
        with _nodes() as nodes:
            for contender in contenders:
                if contender != BASE:
                    plan.say(f"{framework.name}: counting {contender}")
                    _count(framework, contender, nodes, plan.sizes, outcome)
            if plan.n_turns:
                _take_turns(framework, contenders, nodes, plan, outcome)
    return outcome


def _can_take_part(framework: Framework, contender: str, outcome: Outcome) -> bool:
    missing = [name for name in framework.rivals.get(contender, ()) if importlib.util.find_spec(name) is None]
    if missing:
        outcome.left_out[contender] = f"{', '.join(missing)} cannot be imported"
    return not missing


@contextmanager
def _nodes() -> Iterator[list[Memcached]]:
    with ExitStack() as stack:
        nodes = []
        for _ in range(2):
            nodes.append(Memcached(*_MEMORY))
            stack.callback(nodes[-1].stop)
        yield nodes


def _count(framework: Framework, contender: str, nodes: list[Memcached], sizes: list[str], outcome: Outcome) -> None:
    """Check what a contender does, and count what passes on the wire."""
    with wired(nodes) as (wire, addresses), serving(framework, Configuration(contender, addresses)) as server:
        for size in sizes:
            cookie = server.new_session(SIZES[size], 1)
            check(server, cookie)
            for kind, method in METHODS.items():
                traffic = wire.count(partial(server.visits, cookie, method), N_COUNTED)
                outcome.add_traffic(Case(framework.name, size, kind), contender, traffic)


def check(server: Server, cookie: str) -> None:
    """See that a write is there in the next request, twice. Raises: WrongAnswer."""
    for _ in range(2):
        before = server.visits(cookie)
        written, after = server.visits(cookie, "POST"), server.visits(cookie)
        if not before + 1 == written == after:
            raise WrongAnswer(f"a visit more than {before} was answered with {written}, and then read as {after}")


def _take_turns(
    framework: Framework, contenders: list[str], nodes: list[Memcached], plan: Plan, outcome: Outcome
) -> None:
    addresses = tuple(node.address for node in nodes)
    with ExitStack() as stack:
        servers = {name: stack.enter_context(serving(framework, Configuration(name, addresses))) for name in contenders}
        cookies = {
            (name, size): _new_sessions(name, server, size) for name, server in servers.items() for size in plan.sizes
        }
        for name, server in servers.items():
            run_wrk(server.port, METHODS[WRITE], cookies[name, plan.sizes[0]], plan.seconds)
        for turn in range(plan.n_turns):
            plan.say(f"{framework.name}: turn {turn + 1} of {plan.n_turns}")
            # Another one begins each time, so that nobody is always the one behind the same other.
            order = contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]
            for size in plan.sizes:
                for kind in METHODS:
                    samples = {name: _sample(servers[name], kind, cookies[name, size], plan.seconds) for name in order}
                    for name in contenders:
                        outcome.add(Case(framework.name, size, kind), name, samples[name])
        _check_growth(servers, cookies)


def _new_sessions(contender: str, server: Server, size: str) -> list[str]:
    if contender == BASE:
        return _NO_COOKIES
    return [server.new_session(SIZES[size], seed) for seed in range(N_SESSIONS)]


def _sample(server: Server, kind: str, cookies: list[str], seconds: int) -> Sample:
    before = server.cpu_time_s()
    load = run_wrk(server.port, METHODS[kind], cookies, seconds)
    cpu_s = server.cpu_time_s() - before
    if load.n_errors:
        raise WrongAnswer(f"{load.n_errors} of {load.n_requests} requests failed")
    return Sample(load.n_requests / load.duration_s, load.p99_s, cpu_s / load.n_requests)


def _check_growth(servers: dict[str, Server], cookies: Cookies) -> None:
    """See that the load's writes are in every session. Raises: WrongAnswer."""
    for (name, size), of_sessions in cookies.items():
        if name != BASE and not all(servers[name].visits(cookie) > 0 for cookie in of_sessions):
            raise WrongAnswer(f"{name}, {size}: the load has left a session without a visit")
