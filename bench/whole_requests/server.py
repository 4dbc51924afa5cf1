"""A server process with one worker, and what it is asked before and between turns of load."""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.whole_requests.contenders import Configuration, Framework
from bench.whole_requests.content import visits_in

N_THREADS = 1
START_TIMEOUT_S = 60.0
_ROOT = Path(__file__).parents[2]


class Reply(NamedTuple):
    """A response: its status, its body and the cookie that it sets ("name=value"), if it does."""

    status: int
    text: str
    cookie: str | None


class Server:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.port = port

    def ask(self, method: str, path: str, cookie: str | None = None) -> Reply:
        """Return the response to one request, on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_TIMEOUT_S)
        try:
            connection.request(method, path, headers={"Cookie": cookie} if cookie else {})
            response = connection.getresponse()
            text = response.read().decode()
            set_cookie = response.headers.get("Set-Cookie")
        finally:
            connection.close()
        return Reply(response.status, text, set_cookie.partition(";")[0] if set_cookie else None)

    def cpu_time_s(self) -> float:
        """Return what the worker has used of processors so far."""
        return float(self.ask("GET", "/cpu_time").text)

    def new_session(self, size: int, seed: int) -> str:
        """Return the cookie of a new session of that size."""
        reply = self.ask("POST", f"/fill/{size}/{seed}")
        if reply.cookie is None:
            raise WrongAnswer(f"no cookie was set for a new session, status {reply.status}")
        return reply.cookie

    def visits(self, cookie: str, method: str = "GET") -> int:
        """Return what one request says of its session's visits; it must not give the session another cookie."""
        reply = self.ask(method, "/", cookie)
        if reply.status != 200:
            raise WrongAnswer(f"{method} was answered with status {reply.status}: {reply.text[:200]}")
        if reply.cookie not in (None, cookie):
            raise WrongAnswer(f"{method} has changed the session's cookie")
        return visits_in(reply.text)


class WrongAnswer(Exception):
    """A contender does not do what is measured."""


@contextmanager
def serving(framework: Framework, configuration: Configuration) -> Iterator[Server]:
    """Start a server and wait until it answers; end it afterwards."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        # Connections have it from here: uvicorn sets it on none that it accepts from a socket it was given.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        process = subprocess.Popen(
            _command(framework, listener.fileno()),
            cwd=_ROOT,
            env=configuration.environment(),
            pass_fds=[listener.fileno()],
        )
        try:
            server = Server(listener.getsockname()[1])
            server.cpu_time_s()
            yield server
        finally:
            process.terminate()
            process.wait(START_TIMEOUT_S)


def _command(framework: Framework, fd: int) -> list[str]:
    if framework.is_asgi:
        options = ["--fd", str(fd), "--log-level", "warning", "--no-access-log"]
        return [sys.executable, "-m", "uvicorn", framework.application, *options]
    workers = ["--workers", "1", "--worker-class", "gthread", "--threads", str(N_THREADS)]
    options = ["--bind", f"fd://{fd}", "--log-level", "warning", "--keep-alive", "60"]
    return [sys.executable, "-m", "gunicorn", *workers, *options, framework.application]
