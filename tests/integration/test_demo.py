"""The demo for real: it says what it should, and nothing of it is left when it is gone."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TOKEN = "MSM_FAST_DEMO_TEST"
QUICK = ("--sessions", "80", "--seconds", "1")


def processes_with(token):
    """Return the ids of living processes, zombies apart, whose environment holds token."""
    mark = f"{TOKEN}={token}".encode()
    found = []
    if Path("/proc/self/environ").exists():
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found
    listing = subprocess.run(["ps", "-A", "-E", "-ww", "-o", "pid=,stat=,command="], capture_output=True, check=True)
    for line in listing.stdout.splitlines():
        pid, state, rest = line.split(None, 2)
        if mark in rest and not state.startswith(b"Z"):
            found.append(int(pid))
    return found


def heed_interrupts():
    """Undo what a shell does to commands behind an "&": they ignore SIGINT, and so would the demo."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_until(is_true, limit_s=20.0):
    deadline = time.monotonic() + limit_s
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def demo():
    """Start the demo; whatever a failing test leaves behind is killed."""
    token = uuid.uuid4().hex
    started = []

    def start(*arguments):
        process = subprocess.Popen(
            [sys.executable, "-m", "msm_fast", "demo", *arguments],
            env={**os.environ, TOKEN: token, "COLUMNS": "100"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=heed_interrupts,
        )
        process.token = token
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
    for pid in processes_with(token):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def read_until(process, phrase):
    """Read the demo's output up to the line that holds phrase, and return that line."""
    for line in process.stdout:
        if phrase in line:
            return line
    pytest.fail(f"the demo ended without saying {phrase!r}")


def read_directory(process):
    return Path(re.search(r"are in (\S+) while", read_until(process, "The logs"))[1])


@pytest.mark.memcached
def test_no_session_and_no_request_is_lost_with_a_node_and_a_worker(demo):
    process = demo("--once", *QUICK)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "80 sessions before, 80 after: 0 lost." in output
    assert " requests: 0 failed, 0 over the budget of 250 ms" in output
    intact = re.search(r"sessions intact\W+(.*)", output)[1]
    assert re.findall(r"\d+ of \d+", intact) == ["80 of 80"] * 4
    assert re.search(r"n\d \(process \d+\) was killed, with [1-9]\d* sessions", output)
    assert re.search(r"round trips per request\W+[\d.]+", output)


@pytest.mark.memcached
def test_nothing_is_left_when_the_demo_has_ended(demo):
    process = demo("--once", *QUICK)
    directory = read_directory(process)
    assert directory.exists()
    process.communicate(timeout=120)
    assert processes_with(process.token) == []
    assert not directory.exists()


@pytest.mark.memcached
@pytest.mark.parametrize("phrase", ["memcached n2", "Worker w1", "was killed"])
def test_nothing_is_left_when_the_demo_is_killed(demo, phrase):
    process = demo("--once", *QUICK)
    directory = read_directory(process)
    read_until(process, phrase)
    assert len(processes_with(process.token)) > 2
    process.kill()
    process.wait()
    assert wait_until(lambda: not processes_with(process.token))
    assert wait_until(lambda: not directory.exists())


@pytest.mark.memcached
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_story_ends_it_all(demo, number):
    process = demo("--once", *QUICK)
    read_until(process, "Worker w1")
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert processes_with(process.token) == []


@pytest.mark.memcached
def test_without_once_the_shop_stays_up_until_interrupted(demo):
    process = demo(*QUICK)
    address = re.search(r"http://\S+/", read_until(process, "stays open at"))[0]
    with urllib.request.urlopen(address, timeout=10) as response:
        page = response.read().decode()
    assert "Served by worker w" in page
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert processes_with(process.token) == []


def test_the_local_mode_is_shown_without_memcached(demo):
    process = demo("--once", "--local", *QUICK)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert "80 sessions before, 80 after: 0 lost." in output
    assert "There is one worker and no node" in output
    assert processes_with(process.token) == []
