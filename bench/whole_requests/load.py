"""Load by wrk, on several sessions in rotation, and what it tells afterwards."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

N_CONNECTIONS = 4

_SCRIPT = """\
local requests, turn = {}, 0
init = function()
  for i, cookie in ipairs(COOKIES) do
    requests[i] = wrk.format("METHOD", "/", {["Cookie"] = cookie})
  end
end
request = function()
  turn = turn % #requests + 1
  return requests[turn]
end
done = function(summary, latency)
  local errors = summary.errors
  local n_errors = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  print(string.format("measured %d %d %d %.0f", summary.requests, n_errors, summary.duration, latency:percentile(99)))
end
"""


class Load(NamedTuple):
    """What one turn of load has measured.

    n_errors: connections that failed, responses with an error's status, and requests without one.
    """

    n_requests: int
    n_errors: int
    duration_s: float
    p99_s: float


class LoadError(Exception):
    """wrk has not measured anything."""


def find_wrk() -> str | None:
    """Return the path of wrk, or None."""
    return shutil.which("wrk")


def run_wrk(port: int, method: str, cookies: Sequence[str], seconds: int) -> Load:
    """Put load on the server at port for so many seconds.

    Raises: LoadError.
    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "sessions.lua")
        script.write_text(script_for(method, cookies))
        options = ["-t", "1", "-c", str(N_CONNECTIONS), "-d", f"{seconds}s", "--timeout", "10s", "-s", str(script)]
        run = subprocess.run(["wrk", *options, f"http://127.0.0.1:{port}"], capture_output=True, text=True, check=False)
    if run.returncode:
        raise LoadError(f"wrk has failed with exit status {run.returncode}: {run.stderr.strip()}")
    return read_report(run.stdout)


def script_for(method: str, cookies: Sequence[str]) -> str:
    """Return wrk's script for requests of one method that take turns in their cookies."""
    quoted = ", ".join(f"[[{cookie}]]" for cookie in cookies)
    return f"local COOKIES = {{{quoted}}}\n{_SCRIPT.replace('METHOD', method)}"


def read_report(text: str) -> Load:
    """Return what the script's last line says. Raises: LoadError."""
    for line in text.splitlines():
        word, *figures = line.split() or [""]
        if word == "measured" and len(figures) == 4:
            n_requests, n_errors, duration_us, p99_us = map(int, figures)
            return Load(n_requests, n_errors, duration_us / 1e6, p99_us / 1e6)
    raise LoadError(f"wrk's output has no line of the script's: {text!r}")
