"""A worker whose requests are broken off at moments of chance; prints what came of it as JSON.

    python -m tests.adversity.interrupted_worker signals|greenlets NODES

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
SECONDS = 1.0
LONGEST_S = 0.004
"""Requests take one to a few milliseconds: some are broken off, some are not."""


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

    def check(self):
        """Make one request that reads; return what is wrong, if anything."""
        with self._manager.request(self._cookie) as session:
            found = dict(session)
        is_right = found.get("name") == self._name and self._acknowledged <= found["number"] <= self._tried
        return [] if is_right else [f"{self._name} {self._acknowledged}..{self._tried} found {found}"]


def make_manager(nodes):
    from msm_fast import SessionManager, Timeouts

    unhurried = Timeouts(connect=5, operation=5, request=10)
    return SessionManager(nodes, timeouts=unhurried, on_cluster_lost="error", on_corrupt="error")


def new_outcome():
    return {"interrupted": 0, "completed": 0, "wrong": []}


def interrupt_by_signals(nodes):
    """Let a timer's signal raise KeyboardInterrupt in the main thread, as Ctrl-C does."""
    rng = random.Random(44)
    outcome = new_outcome()
    is_armed = False

    def interrupt(number, frame):
        if is_armed:
            raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, interrupt)
    with closing(make_manager(nodes)) as manager:
        clients = [Client(manager, f"client{n}") for n in range(N_SESSIONS)]
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            client = rng.choice(clients)
            try:
                try:
                    is_armed = True
                    signal.setitimer(signal.ITIMER_REAL, LONGEST_S * rng.random() + 1e-6)
                    client.count_up()
                finally:
                    is_armed = False
            except KeyboardInterrupt:
                outcome["interrupted"] += 1
            else:
                outcome["completed"] += 1
            outcome["wrong"] += rng.choice(clients).check()
        outcome["wrong"] += [fault for client in clients for fault in client.check()]
        return {**outcome, "open_sockets": count_sockets(nodes), "most_at_once": 3}


def interrupt_greenlets(nodes):
    """Let gevent.Timeout, which is no Exception, end requests of many greenlets that share the manager."""
    import gevent

    outcome = new_outcome()
    with closing(make_manager(nodes)) as manager:
        clients = [Client(manager, f"client{n}") for n in range(N_GREENLETS)]

        def work(n):
            rng = random.Random(n)
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                try:
                    with gevent.Timeout(N_GREENLETS * LONGEST_S * rng.random() + 1e-6):
                        clients[n].count_up()
                except gevent.Timeout:
                    outcome["interrupted"] += 1
                else:
                    outcome["completed"] += 1
                outcome["wrong"] += clients[n].check()

        gevent.joinall([gevent.spawn(work, n) for n in range(N_GREENLETS)], raise_error=True)
        return {**outcome, "open_sockets": count_sockets(nodes), "most_at_once": 3 * N_GREENLETS}


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
    kind, nodes = sys.argv[1:]
    if kind == "greenlets":
        from gevent import monkey

        monkey.patch_all()
    run = {"signals": interrupt_by_signals, "greenlets": interrupt_greenlets}[kind]
    print(json.dumps(run(nodes)))
