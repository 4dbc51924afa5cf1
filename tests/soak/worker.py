"""A worker process of the soak: one manager, a thread for each client, and an honest clock of its own.

`python -m tests.soak.worker SOCKET SETTINGS` serves requests over a unix socket until it is killed. SETTINGS: JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import deque
from dataclasses import asdict
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

from msm_fast import Breaker, MsmError, NearCacheSettings, Reconnect, SessionManager
from tests.soak.messages import AUTH_KEY, Answer, Request

TICK_S = 0.005


class StallClock:
    """Notes when this process was kept from running: a thread that sleeps 5 ms is late by as much."""

    def __init__(self) -> None:
        self._stalls: deque[tuple[float, float]] = deque(maxlen=1000)
        threading.Thread(target=self._tick, daemon=True).start()

    def stalled_since(self, started: float) -> float:
        """Return for how many seconds since started nothing of this process may have run."""
        return sum(late for at, late in list(self._stalls) if at >= started)

    def _tick(self) -> None:
        while True:
            before = time.monotonic()
            time.sleep(TICK_S)
            late = time.monotonic() - before - TICK_S
            if late > TICK_S:
                self._stalls.append((time.monotonic(), late))


class Worker:
    def __init__(self, settings: dict[str, Any]) -> None:
        reconnect = Reconnect(**settings.pop("reconnect"))
        self._manager = SessionManager(
            **settings, reconnect=reconnect, breaker=Breaker(), near_cache=NearCacheSettings(max_sessions=500)
        )
        self._stalls = StallClock()

    def serve(self, client: Connection) -> None:
        """Answer one client's requests until it goes away."""
        try:
            while True:
                request = client.recv()
                client.send(self._measure() if request is None else self._answer(request))
        except (EOFError, OSError):
            client.close()

    def _answer(self, request: Request) -> Answer:
        started = time.monotonic()
        answer: dict[str, Any] = {}
        try:
            scope = self._manager.request(request.cookie, request.method, "/soak")
            session = scope.session
            answer.update(found=dict(session), is_new=session.is_new)
            was_local = session.is_local
            if request.action == "logout":
                session.invalidate()
            elif request.action == "rotate":
                session.rotate_id()
            session.update(request.changes)
            result = scope.save()
            answer.update(status=result.status, n_copies=len(result.backups) + (result.node is not None))
            answer.update(cookie=session.id, is_local=was_local or session.is_local)
        except MsmError as error:
            answer.update(error=type(error).__name__)
        ended = time.monotonic()
        return Answer(**answer, took_s=ended - started - self._stalls.stalled_since(started))

    def _measure(self) -> dict[str, Any]:
        pages = int(Path("/proc/self/statm").read_text().split()[1]) if sys.platform == "linux" else 0
        return {
            "rss": pages * resource.getpagesize(),
            "fds": len(os.listdir("/dev/fd")),
            "threads": threading.active_count(),
            "state": self._manager.distribution.state.value,
            "statistics": asdict(self._manager.statistics()),
        }


def main() -> None:
    address, settings = sys.argv[1:]
    worker = Worker(json.loads(settings))
    with Listener(address, "AF_UNIX", backlog=64, authkey=AUTH_KEY) as listener:
        while True:
            client = listener.accept()
            threading.Thread(target=worker.serve, args=(client,), daemon=True).start()


if __name__ == "__main__":
    main()
