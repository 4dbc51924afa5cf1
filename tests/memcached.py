"""Real memcached processes for tests, on ports that the kernel gives."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import closing
from pathlib import Path

from pymemcache.client.base import Client

START_TIMEOUT_S = 10.0


def find_memcached() -> str:
    path = shutil.which("memcached") or shutil.which("memcached", path="/usr/sbin:/usr/local/bin:/opt/homebrew/bin")
    if path is None:
        raise RuntimeError("no memcached on the PATH: run `make test`, which installs one, or install it yourself")
    return path


class Memcached:
    """One server process; ended by its pid."""

    def __init__(self, *options: str) -> None:
        self._options = options
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; a second time on the same port, with nothing in it."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o777)
            port_file = Path(folder, "port")
            as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
            self._process = subprocess.Popen(
                [find_memcached(), "-l", f"127.0.0.1:{self.port or -1}", "-U", "0", *as_user, *self._options],
                env={**os.environ, "MEMCACHED_PORT_FILENAME": str(port_file)},
                stderr=subprocess.DEVNULL,
            )
            deadline = time.monotonic() + START_TIMEOUT_S
            while not port_file.exists():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"memcached did not start (exit status {self._process.poll()})")
                time.sleep(0.005)
            line = next(line for line in port_file.read_text().splitlines() if line.startswith("TCP INET:"))
            self.port = int(line.split(":")[1])

    def kill(self) -> None:
        """End it as a crash does."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait(START_TIMEOUT_S)

    def pause(self) -> None:
        """Make it hang, and wait until it does: the kernel still accepts connections for it."""
        self._signal(signal.SIGSTOP)
        assert self._process is not None
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it, whatever state it is in."""
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def client(self) -> closing[Client]:
        """Return a plain client, to look at items and to tamper with them: `with server.client() as client: …`."""
        return closing(Client(("127.0.0.1", self.port), default_noreply=False, timeout=START_TIMEOUT_S))

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
