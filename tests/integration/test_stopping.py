"""on_stop="end_process" under real servers: a worker that was stopped makes room for another, or ends its server."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from msm_fast.drivers.process_end import LEAST_AGE_S

pytestmark = pytest.mark.slow

PATIENCE_S = 40.0
GUNICORN = ["gunicorn", "--bind", "fd://{fd}", "tests.integration.stopping_app:wsgi_app"]
UVICORN = ["uvicorn", "--fd", "{fd}", "tests.integration.stopping_app:asgi_app"]


class Server:
    def __init__(self, command: list[str]) -> None:
        self.started_at = time.monotonic()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            words = [word.format(fd=listener.fileno()) for word in command]
            self.process = subprocess.Popen(
                [sys.executable, "-m", *words],
                pass_fds=[listener.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def send(self, method: str) -> tuple[int, str]:
        """Return the status and the body of the answer."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                request = urllib.request.Request(self._address, method=method)
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                    return response.status, response.read().decode()
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, ""
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[Server]:
    server = Server(command)
    try:
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.process.pid, signal.SIGKILL)
        server.process.wait(PATIENCE_S)


@pytest.mark.parametrize(
    "command",
    [[*GUNICORN, "--workers", "1"], [*GUNICORN, "--threads", "4"]],
    ids=["gunicorn, sync", "gunicorn, gthread"],
)
def test_another_worker_takes_the_place_of_one_that_was_stopped(command: list[str]) -> None:
    with serving(command) as server:
        status, pid = server.send("GET")
        assert status == 200
        assert server.send("POST")[0] == 500
        assert server.send("GET")[0] == 500
        while (answer := server.send("GET"))[0] == 500:
            assert time.monotonic() - server.started_at < PATIENCE_S
            time.sleep(0.1)
        assert time.monotonic() - server.started_at > LEAST_AGE_S
        assert answer[0] == 200
        assert answer[1] != pid
        assert server.process.poll() is None


def test_a_server_of_one_process_ends() -> None:
    with serving(UVICORN) as server:
        assert server.send("GET")[0] == 200
        assert server.send("POST")[0] == 500
        assert server.process.wait(PATIENCE_S) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
        assert time.monotonic() - server.started_at > LEAST_AGE_S
