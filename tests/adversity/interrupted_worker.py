"""A worker whose requests are broken off at moments of chance; prints what came of it as JSON.

    python -m tests.adversity.interrupted_worker signals|greenlets NODES [SETTINGS as JSON]

Each session has one client, who writes ever higher numbers into it. Whatever a request was broken off at, a later one
must find the client's own session, and no number below the last that was acknowledged.
"""

from __future__ import annotations

import json
import random
import signal
import sys
import time
from contextlib import closing

N_SESSIONS = 5
N_GREENLETS = 10
ENOUGH = 200
"""So many requests must be broken off, and so many not."""
GIVES_UP_AFTER_S = 30.0


class Outcome:
    """What came of the requests so far, and how long the next one is given.

    That follows from how the last ones went, so that some are broken off and some are not, however fast the machine is.
    """

    def __init__(self):
        self.interrupted = self.completed = 0
        self.wrong = []
        self._longest_s = 0.004
        self._gives_up_at = time.monotonic() + GIVES_UP_AFTER_S

    def is_enough(self):
        return min(self.interrupted, self.completed) >= ENOUGH or time.monotonic() > self._gives_up_at

    def patience_s(self, rng):
        return self._longest_s * rng.random() + 1e-6

    def note(self, is_completed):
        self.completed += is_completed
        self.interrupted += not is_completed
        self._longest_s = min(self._longest_s * (0.95 if is_completed else 1.06), 1.0)

    def as_dict(self, **more):
        return {"interrupted": self.interrupted, "completed": self.completed, "wrong": self.wrong, **more}


class Client:
    """One client: its cookie, the last number that was acknowledged, and the last that was tried."""

    def __init__(self, manager, name):
        self._manager = manager
        self._name = name
        self._acknowledged = self._tried = 0
        with manager.request(None, "POST") as session:
            session.update(name=name, number=0)
        self._cookie = session.id

    def count_up(self):
        """Make one request that writes."""
        self._tried += 1
        with self._manager.request(self._cookie, "POST") as session:
            self._cookie = session.id
            session["number"] = self._tried
        self._acknowledged = self._tried

    def check(self, manager=None):
        """Make one request that reads; return what is wrong, if anything."""
        with (manager or self._manager).request(self._cookie) as session:
            found = dict(session)
        is_right = found.get("name") == self._name and self._acknowledged <= found["number"] <= self._tried
        return [] if is_right else [f"{self._name} {self._acknowledged}..{self._tried} found {found}"]


def make_manager(nodes, settings):
    from msm_fast import SessionManager, Timeouts

    unhurried = Timeouts(connect=5, operation=5, request=10)
    return SessionManager(nodes, timeouts=unhurried, on_cluster_lost="error", on_corrupt="error", **settings)


def find_unwritten(nodes, clients):
    """Return what another worker would not find of what was acknowledged, after this one has ended."""
    with closing(make_manager(nodes, {})) as other:
        return [fault for client in clients for fault in client.check(other)]


def interrupt_by_signals(nodes, settings):
    """Let a timer's signal raise KeyboardInterrupt in the main thread, as Ctrl-C does."""
    rng = random.Random(44)
    outcome = Outcome()
    is_armed = False

    def interrupt(number, frame):
        if is_armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    with closing(make_manager(nodes, settings)) as manager:
        clients = [Client(manager, f"client{n}") for n in range(N_SESSIONS)]
        while not outcome.is_enough():
            client = rng.choice(clients)
            try:
                try:
                    is_armed = True
                    signal.setitimer(signal.ITIMER_REAL, outcome.patience_s(rng))
                    client.count_up()
                finally:
                    is_armed = False
            except KeyboardInterrupt:
                outcome.note(False)
            else:
                outcome.note(True)
            outcome.wrong += rng.choice(clients).check()
        outcome.wrong += [fault for client in clients for fault in client.check()]
        n_sockets = count_sockets(nodes)
    outcome.wrong += find_unwritten(nodes, clients)
    return outcome.as_dict(open_sockets=n_sockets, most_at_once=6 if settings.get("sticky") else 3)


def interrupt_greenlets(nodes, settings):
    """Let gevent.Timeout, which is no Exception, end requests of many greenlets that share the manager."""
    import gevent

    outcome = Outcome()
    with closing(make_manager(nodes, settings)) as manager:
        clients = [Client(manager, f"client{n}") for n in range(N_GREENLETS)]

        def work(n):
            rng = random.Random(n)
            while not outcome.is_enough():
                try:
                    with gevent.Timeout(outcome.patience_s(rng)):
                        clients[n].count_up()
                except gevent.Timeout:
                    outcome.note(False)
                else:
                    outcome.note(True)
                outcome.wrong += clients[n].check()

        gevent.joinall([gevent.spawn(work, n) for n in range(N_GREENLETS)], raise_error=True)
        n_sockets = count_sockets(nodes)
    outcome.wrong += find_unwritten(nodes, clients)
    return outcome.as_dict(open_sockets=n_sockets, most_at_once=3 * (N_GREENLETS + 1))


def count_sockets(nodes):
    """Return how many connections the servers have, this question's own apart."""
    from pymemcache.client.base import Client as PlainClient

    n = 0
    for node in nodes.split(","):
        _, host, port = node.split(":")
        with closing(PlainClient((host, int(port)))) as client:
            client.version()
            time.sleep(0.1)  # the server sees the end of the others only after a moment
            n += int(client.stats()[b"curr_connections"]) - 1
    return n


if __name__ == "__main__":
    kind, nodes, *rest = sys.argv[1:]
    if kind == "greenlets":
        from gevent import monkey

        monkey.patch_all()
    run = {"signals": interrupt_by_signals, "greenlets": interrupt_greenlets}[kind]
    print(json.dumps(run(nodes, json.loads(rest[0]) if rest else {})))
