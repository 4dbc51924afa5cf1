"""The shops of examples/, opened as their README says."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from examples.servers import SHOPS, find_nginx
from tests.integration.test_demo import TOKEN, heed_interrupts, processes_with

ROOT = Path(__file__).parents[2]
PATIENCE_S = 40.0


class Shop:
    """What `python -m examples` has opened."""

    def __init__(self, name: str, *options: str, nodes: str = "") -> None:
        self.cookie = SHOPS[name].cookie
        self.token = uuid.uuid4().hex
        self._process = subprocess.Popen(
            [sys.executable, "-m", "examples", name, *options],
            cwd=ROOT,
            env={**os.environ, "MSM_FAST_NODES": nodes, TOKEN: self.token},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )

    def wait_until_open(self) -> None:
        self.address = urlsplit(self.wait_for(r"http://\S+")[0])
        children = self.wait_for(r"reload the page: (.*)")[1]
        self.nodes = {name: int(pid) for name, pid in re.findall(r"(n\d) (\d+)", children)}
        self.workers = [int(pid) for pid in re.findall(r"worker (\d+)", children)]

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Read what the shop says up to a line that has pattern."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            match = re.search(pattern, line)
            if match:
                return match
        pytest.fail(f"the shop has ended without saying {pattern!r}")

    def close(self) -> int:
        """End it as Ctrl-C does, and return its exit status."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.communicate(timeout=PATIENCE_S)
        finally:
            self._process.kill()
        return self._process.returncode


@contextlib.contextmanager
def opened(name: str, *options: str, nodes: str = "") -> Iterator[Shop]:
    """Open a shop; whatever a failing test leaves behind is killed."""
    if "--sticky" in options and find_nginx() is None:
        pytest.skip("nginx is not installed (Debian, Ubuntu: apt-get install nginx)")
    shop = Shop(name, *options, nodes=nodes)
    try:
        shop.wait_until_open()
        yield shop
    finally:
        shop.close()
        for pid in processes_with(shop.token):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
