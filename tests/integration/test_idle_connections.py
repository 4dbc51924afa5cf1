"""Connections that nobody uses for a while, on real memcached processes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from msm_fast import SessionManager
from tests.integration.conftest import Nodes
from tests.integration.test_manager import wait_until

pytestmark = pytest.mark.memcached

TABLE = Path("/proc/self/net/tcp")
ESTABLISHED, KEEPALIVE, TICKS_PER_S = "01", "02", 100


@pytest.mark.skipif(not TABLE.exists(), reason="no table of connections")
def test_the_kernel_keeps_alive_what_firewalls_would_forget(
    make_manager: Callable[..., SessionManager], nodes: Nodes
) -> None:
    with make_manager().request(None) as session:
        session["user"] = "ada"
    home = nodes[session.id.rpartition("-")[2]]
    wait_until(lambda: len(silence_allowed_s(home.port)) == 1)
    (allowed_s,) = silence_allowed_s(home.port)
    assert 20 < allowed_s <= 30


def silence_allowed_s(port: int) -> list[float]:
    """Return after how many seconds the kernel says something on each connection to port that is silent until then.

    Source: Linux, Documentation/networking/proc_net_tcp.rst.
    """
    rows = [row.split() for row in TABLE.read_text().splitlines()[1:]]
    ours = [row for row in rows if row[2].endswith(f":{port:04X}") and row[3] == ESTABLISHED]
    timers = [row[5].split(":") for row in ours]
    return [int(when, 16) / TICKS_PER_S for timer, when in timers if timer == KEEPALIVE]
