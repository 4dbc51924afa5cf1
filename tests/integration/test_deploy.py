"""The balancers' configurations of docs/deploy.md, before real sticky workers."""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.cookies import SimpleCookie
from pathlib import Path

import pytest

from examples.servers import NGINX
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.memcached

PAGE = (Path(__file__).parents[2] / "docs" / "deploy.md").read_text()
PATIENCE_S = 20.0


class Worker:
    """gunicorn with one worker, on a port that it alone listens on: once it is killed, the port refuses."""

    def __init__(self, route: str, nodes: str) -> None:
        self.route = route
        self._environment = {
            "MSM_FAST_NODES": nodes,
            "MSM_FAST_STICKY": "true",
            "MSM_FAST_BACKUP": "sync",
            "MSM_FAST_ROUTE": route,
        }
        self.port = 0
        self.start()

    def start(self) -> None:
        with socket.create_server(("127.0.0.1", self.port)) as listener:
            self.port = listener.getsockname()[1]
            command = ["gunicorn", "--workers", "1", "--threads", "4", "--bind", f"fd://{listener.fileno()}"]
            self._process = subprocess.Popen(
                [sys.executable, "-m", *command, "tests.integration.balanced_app:app"],
                env={**os.environ, **self._environment},
                pass_fds=[listener.fileno()],
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it and its children without a word, and wait until its port refuses: the children end on their own."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(PATIENCE_S)
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                socket.create_connection(("127.0.0.1", self.port), PATIENCE_S).close()
                time.sleep(0.01)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


class Visitor:
    """A client that keeps its cookie. served_by: the route of the worker that answered last."""

    def __init__(self, address: Path) -> None:
        self._address = address
        self.cookie = ""
        self.served_by = ""

    def request(self, method: str, path: str) -> str:
        with contextlib.closing(UnixConnection(self._address)) as connection:
            connection.request(method, path, headers={"Cookie": f"session={self.cookie}"} if self.cookie else {})
            response = connection.getresponse()
            body = response.read().decode()
        assert response.status == 200, body
        fresh = SimpleCookie(response.getheader("Set-Cookie") or "")
        if "session" in fresh:
            self.cookie = fresh["session"].value
        self.served_by = response.getheader("X-Worker") or ""
        return body


def configuration_of(balancer: str, address: Path, workers: list[Worker]) -> str:
    """Return the page's block for a balancer, to listen at address and with the workers' ports."""
    (block,) = re.findall(rf"^```{balancer}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    listening = {"nginx": f"listen unix:{address};", "haproxy": f"bind unix@{address}"}[balancer]
    block, n_listening = re.subn(r"(listen|bind) 127\.0\.0\.1:8080;?", listening, block)
    assert n_listening == 1
    for i, worker in enumerate(workers, 1):
        assert f"127.0.0.1:800{i}" in block
        block = block.replace(f"127.0.0.1:800{i}", f"127.0.0.1:{worker.port}")
    return block


def command_of(balancer: str, configuration: str, folder: Path) -> list[str]:
    file = folder / f"{balancer}.conf"
    if balancer == "haproxy":
        file.write_text(configuration)
        return ["haproxy", "-db", "-f", os.fspath(file)]
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    file.write_text(NGINX.format(user=user, folder=folder, servers=configuration))
    return ["nginx", "-p", os.fspath(folder), "-c", os.fspath(file)]


@pytest.fixture
def workers(nodes: Nodes) -> Iterator[list[Worker]]:
    text = ",".join(f"{name}:{server.address}" for name, server in nodes.items())
    started: list[Worker] = []
    try:
        started.extend(Worker(route, text) for route in ("w1", "w2"))
        yield started
    finally:
        for worker in started:
            worker.kill()


@pytest.fixture(params=["nginx", "haproxy"])
def address(request: pytest.FixtureRequest, workers: list[Worker], tmp_path: Path) -> Iterator[Path]:
    """Return where a balancer listens, once both workers answer."""
    balancer = request.param
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin"])
    program = shutil.which(balancer, path=path)
    if program is None:
        pytest.skip(f"{balancer} is not installed (Debian, Ubuntu: apt-get install {balancer})")
    at = tmp_path / "balancer"
    _, *arguments = command_of(balancer, configuration_of(balancer, at, workers), tmp_path)
    for worker in workers:
        wait_until_served(worker)
    process = subprocess.Popen([program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not at.exists():
            assert process.poll() is None, f"{balancer} does not take the configuration of docs/deploy.md"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield at
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def wait_until_served(worker: Worker) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.request("GET", "/")
        assert connection.getresponse().status == 200


def visitors_of_both(address: Path) -> list[Visitor]:
    """Return visitors with something in their carts, some of each worker's."""
    visitors: list[Visitor] = []
    while len({visitor.served_by for visitor in visitors}) < 2 or len(visitors) < 6:
        assert len(visitors) < 50
        visitors.append(Visitor(address))
        assert visitors[-1].request("POST", "/apple") == "apple"
    return visitors


def test_requests_go_to_the_worker_that_their_cookie_names(address: Path) -> None:
    for visitor in visitors_of_both(address):
        first = visitor.served_by
        assert visitor.cookie.endswith(f".{first}")
        for n in range(2, 6):
            assert visitor.request("POST", "/pear").count(",") == n - 1
            assert visitor.served_by == first


def test_when_a_worker_dies_the_other_has_its_carts_and_keeps_them(address: Path, workers: list[Worker]) -> None:
    visitors = visitors_of_both(address)
    workers[0].kill()
    for visitor in visitors:
        assert visitor.request("GET", "/") == "apple"
        assert visitor.request("POST", "/pear") == "apple,pear"
        assert visitor.served_by == "w2"
        assert visitor.cookie.endswith(".w2")
    workers[0].start()
    wait_until_served(workers[0])
    for visitor in visitors:
        assert visitor.request("GET", "/") == "apple,pear"
        assert visitor.served_by == "w2"
