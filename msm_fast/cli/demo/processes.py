"""The demo's child processes: how they start, are killed, and never outlive the demo."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from msm_fast.cli.demo import guardian
from msm_fast.drivers.greeting import OLDEST_VERSION

__all__ = [
    "HOST",
    "MORE_DIRECTORIES",
    "DemoError",
    "Family",
    "MemcachedNode",
    "Server",
    "ShopWorker",
    "find_memcached",
    "wait_until",
]

# Servers are often installed where an ordinary user's PATH does not look.
MORE_DIRECTORIES = ("/usr/local/bin", "/usr/local/sbin", "/usr/sbin", "/opt/homebrew/bin")
START_LIMIT_S = 30.0
STOP_LIMIT_S = 3.0
HOST = "127.0.0.1"


class DemoError(Exception):
    """The demo cannot run; the message is one sentence for its user."""


def find_memcached(search_path: str | None = None) -> str:
    """Return the path of a memcached server that is new enough.

    search_path: directories as in PATH; None: PATH and the places where servers are usually installed.
    Raises:  DemoError when there is none, or the first one found is too old.
    """
    oldest = ".".join(map(str, OLDEST_VERSION))
    if search_path is None:
        search_path = os.pathsep.join((os.environ.get("PATH", os.defpath), *MORE_DIRECTORIES))
    path = shutil.which("memcached", path=search_path)
    if path is None:
        raise DemoError(f"No memcached server was found: install memcached {oldest} or newer to see nodes fail.")
    answer = subprocess.run([path, "-V"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", answer)
    if version is None or tuple(map(int, version.groups())) < OLDEST_VERSION:
        raise DemoError(f"{path} is {answer.strip() or 'no memcached'}: install memcached {oldest} or newer.")
    return path


class Family:
    """All children, and the guardian that ends them should the demo be killed.

    Each child leads its own session: a Ctrl-C at the terminal reaches the demo alone, and killing a child's process
    group kills what it has forked.
    """

    def __init__(self) -> None:
        # Root's memcached writes its port file as nobody, whom a private TMPDIR may shut out.
        place = "/tmp" if os.geteuid() == 0 else None
        self.directory = Path(tempfile.mkdtemp(prefix="msm-fast-demo-", dir=place))
        self._children: list[subprocess.Popen[bytes]] = []
        self._guardian = subprocess.Popen(
            [sys.executable, "-I", "-S", guardian.__file__, str(self.directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start(
        self, command: Sequence[str], log: Path, environment: Mapping[str, str], fds: Iterable[int] = ()
    ) -> subprocess.Popen[bytes]:
        """Start a child whose output goes to log; fds: open files it inherits under the same numbers."""
        with log.open("ab") as output:
            # The shell waits for a word before it becomes the command. If the demo is killed before the guardian
            # knows the child, the shell meets end of file instead, and ends.
            child = subprocess.Popen(
                ["/bin/sh", "-c", 'read -r word && exec "$@"', "sh", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                pass_fds=tuple(fds),
                start_new_session=True,
            )
        self._children.append(child)
        self._tell_guardian(f"+{child.pid}\n")
        assert child.stdin is not None
        with child.stdin:
            child.stdin.write(b"go\n")
        return child

    def kill(self, child: subprocess.Popen[bytes]) -> None:
        """Kill a child and all it has forked (SIGKILL), and wait for its end."""
        self._signal(child, signal.SIGKILL)
        self._forget(child)

    def close(self) -> None:
        """End every child, the guardian last. Idempotent."""
        for child in self._children:
            self._signal(child, signal.SIGTERM)
        deadline = time.monotonic() + STOP_LIMIT_S
        for child in list(self._children):
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            self.kill(child)
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guardian.stdin.close()
        self._guardian.wait()

    def _signal(self, child: subprocess.Popen[bytes], number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, number)

    def _forget(self, child: subprocess.Popen[bytes]) -> None:
        # Released before it is reaped: until then its number cannot be another process's.
        self._tell_guardian(f"-{child.pid}\n")
        child.wait()
        self._children.remove(child)

    def _tell_guardian(self, line: str) -> None:
        assert self._guardian.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guardian.stdin.write(line.encode())
            self._guardian.stdin.flush()


class Server:
    """A server that can be killed while it runs, and is started again on the port it had."""

    def __init__(self, family: Family, name: str) -> None:
        self.name = name
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self._family = family

    def start(self) -> None:
        """Start it, and wait until it serves. Raises: DemoError if it does not."""
        raise NotImplementedError

    def kill(self) -> int:
        """Kill it with its own children (SIGKILL), and return the process id it had."""
        assert self.process is not None
        pid = self.process.pid
        self._family.kill(self.process)
        self.process = None
        return pid


class MemcachedNode(Server):
    """One memcached process on the loopback interface; it keeps its port when it is started again."""

    def __init__(self, family: Family, path: str, node_id: str) -> None:
        super().__init__(family, node_id)
        self._path = path

    @property
    def address(self) -> str:
        """The node as SessionManager takes it: id:host:port."""
        return f"{self.name}:{HOST}:{self.port}"

    def start(self) -> None:
        """Start it, on a port of the kernel's choice the first time, and wait until it answers."""
        port_file = self._port_directory() / self.name
        log = self._family.directory / f"{self.name}.log"
        command = [self._path, "-l", f"{HOST}:{self.port or -1}", "-m", "64", "-t", "2"]
        if os.geteuid() == 0:
            command += ["-u", "nobody"]
        self.process = self._family.start(command, log, {"MEMCACHED_PORT_FILENAME": str(port_file)})
        if not self.port:
            wait_until(port_file.exists, self.process, self.name, log)
            self.port = int(port_file.read_text().rpartition(":")[2])
        wait_until(self._answers, self.process, self.name, log)

    def _port_directory(self) -> Path:
        directory = self._family.directory / "ports"
        directory.mkdir(exist_ok=True)
        if os.geteuid() == 0:
            # memcached drops its privileges before it writes the file.
            os.chown(directory, pwd.getpwnam("nobody").pw_uid, -1)
            self._family.directory.chmod(0o711)
        return directory

    def _answers(self) -> bool:
        try:
            with socket.create_connection((HOST, self.port), timeout=1) as connection:
                connection.sendall(b"mn\r\n")
                return connection.recv(4) == b"MN\r\n"
        except OSError:
            return False


class ShopWorker(Server):
    """One gunicorn with one worker process.

    It listens on a socket of its own, where the demo's balancer finds it, and on the public one that all workers share.
    """

    def __init__(self, family: Family, name: str, nodes: str, public: socket.socket) -> None:
        super().__init__(family, name)
        self._nodes = nodes
        self._public = public

    def start(self) -> None:
        """Start it, on a port of the kernel's choice, and wait until it serves."""
        log = self._family.directory / f"{self.name}.log"
        # The demo closes its copy: once the worker is dead nobody listens, and connections are refused.
        with socket.create_server((HOST, 0)) as own:
            self.port = own.getsockname()[1]
            fds = (own.fileno(), self._public.fileno())
            environment = {
                "MSM_FAST_DEMO_NODES": self._nodes,
                "MSM_FAST_DEMO_WORKER": self.name,
                "MSM_FAST_DEMO_SOCKETS": ",".join(map(str, fds)),
                "GUNICORN_CMD_ARGS": "",
            }
            command = [sys.executable, "-m", "gunicorn", "--config", "python:msm_fast.cli.demo.serving"]
            command.append("msm_fast.cli.demo.shop:create_app()")
            self.process = self._family.start(command, log, environment, fds)
        wait_until(self._answers, self.process, self.name, log)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def wait_until(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Wait until a process that was started is ready. Raises: DemoError with its last words if it is not in time."""
    deadline = time.monotonic() + START_LIMIT_S
    while not is_ready():
        if process.poll() is not None or time.monotonic() > deadline:
            last_words = " / ".join(log.read_text(errors="replace").splitlines()[-5:])
            raise DemoError(f"{name} did not start: {last_words or 'it says nothing.'}")
        time.sleep(0.02)
