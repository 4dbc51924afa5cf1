"""The soak's processes: three memcached nodes and some workers, and what befalls them."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection
from pathlib import Path
from typing import Any

from msm_fast import MsmError
from msm_fast._core.record import decode_record
from tests.memcached import Memcached
from tests.soak.messages import AUTH_KEY

START_TIMEOUT_S = 20.0
RECONNECT = {"first": 0.5, "factor": 1.5, "cap": 1.0}
LONGEST_PROBE_INTERVAL_S = 1.5 * RECONNECT["cap"]


class WorkerProcess:
    """One worker; started again under the same name after it was killed."""

    def __init__(self, name: str, folder: Path, settings: dict[str, Any]) -> None:
        self.name = name
        self._address = str(folder / f"{name}.sock")
        self._settings = json.dumps({**settings, "route": name} if settings.get("sticky") else settings)
        self.start()

    @property
    def is_alive(self) -> bool:
        """Whether it takes requests."""
        return self._is_alive

    def start(self) -> None:
        self._is_alive = False
        Path(self._address).unlink(missing_ok=True)
        self._process = subprocess.Popen([sys.executable, "-m", "tests.soak.worker", self._address, self._settings])
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.connect().close()
                self._is_alive = True
                return
            except (OSError, EOFError):
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"worker {self.name} did not start") from None
                time.sleep(0.02)

    def connect(self) -> Connection:
        return Client(self._address, "AF_UNIX", authkey=AUTH_KEY)

    def measure(self) -> dict[str, Any]:
        with self.connect() as connection:
            connection.send(None)
            measured: dict[str, Any] = connection.recv()
            return measured

    def kill(self) -> None:
        self._process.kill()
        self._is_alive = False
        self._process.wait()


@dataclass(frozen=True)
class Fault:
    """name: what stands in the report. begin, end: carried out some seconds apart."""

    name: str
    begin: Callable[[], None]
    end: Callable[[], None]


class Cluster:
    """Three nodes and n_workers workers."""

    def __init__(self, folder: Path, n_workers: int, settings: dict[str, Any]) -> None:
        self.nodes = {f"n{i}": Memcached() for i in (1, 2, 3)}
        nodes = ",".join(f"{name}:{node.address}" for name, node in self.nodes.items())
        settings = {"nodes": nodes, "reconnect": RECONNECT, **settings}
        self.workers = [WorkerProcess(f"w{i}", folder, settings) for i in range(1, n_workers + 1)]

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        for node in self.nodes.values():
            node.stop()

    def describe_copies(self, cookie: str | None) -> str:
        """Return what each node has of a session now, to be told with a violation."""
        key = (cookie or "")[:32].encode()
        return ", ".join(f"{name} has {_describe_copy(node, key)}" for name, node in self.nodes.items())

    def random_fault(self, rng: random.Random) -> Fault:
        name = rng.choice(list(self.nodes))
        node = self.nodes[name]
        worker = rng.choice(self.workers)
        all_nodes = list(self.nodes.values())
        return rng.choice(
            [
                Fault(f"{name} killed", node.kill, node.start),
                Fault(f"{name} hangs", node.pause, node.resume),
                Fault(f"{name} flushed", lambda: flush(node), _nothing),
                Fault(f"{worker.name} killed", worker.kill, worker.start),
                Fault("all hang", lambda: _each(all_nodes, "pause"), lambda: _each(all_nodes, "resume")),
            ]
        )


def _describe_copy(node: Memcached, key: bytes) -> str:
    try:
        with socket.create_connection(("127.0.0.1", node.port), timeout=0.5) as connection:
            connection.sendall(b"mg %s v\r\n" % key)
            with connection.makefile("rb") as replies:
                head = replies.readline()
                record = decode_record(replies.read(int(head.split()[1])), key) if head.startswith(b"VA") else None
    except (OSError, MsmError) as error:
        return type(error).__name__
    if record is None:
        return "none"
    return f"generation {record.generation}{' (a tombstone)' * record.is_tombstone} of {record.lineage[:3]}"


def flush(node: Memcached) -> None:
    with socket.create_connection(("127.0.0.1", node.port), timeout=5) as connection:
        connection.sendall(b"flush_all\r\n")
        assert connection.recv(64) == b"OK\r\n"


def _each(nodes: list[Memcached], what: str) -> None:
    for node in nodes:
        getattr(node, what)()


def _nothing() -> None:
    pass
