"""The thread that asks nodes that are down whether they answer again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator

import pytest

from msm_fast import Reconnect, SessionManager, Settings
from msm_fast.drivers.prober import Prober
from msm_fast.engine.context import Clock, Context
from tests.integration.test_manager import wait_until

LONG_S = 1000.0
NODES = "n1:127.0.0.1:1,n2:127.0.0.1:2"


@pytest.fixture
def ctx() -> Context:
    """Two nodes; after its first probe, soon, a node is not probed again for long."""
    settings = Settings.build(NODES, reconnect=Reconnect(first=0.001, factor=1e6, cap=LONG_S))
    return Context(settings, Clock(monotonic=time.monotonic, wall=time.time), random.Random(1))


@pytest.fixture
def probed() -> list[str]:
    return []


@pytest.fixture
def prober(ctx: Context, probed: list[str]) -> Iterator[Prober]:
    prober = Prober(ctx, probed.append, lambda: probed.append("reconnected"))
    yield prober
    started = time.monotonic()
    prober.close(10)
    assert time.monotonic() - started < 5, "it does not wait for its next probe"


def lose(ctx: Context, prober: Prober, node: str) -> None:
    ctx.health.failed(node, "refused", "nobody listens", time.monotonic())
    prober.wake()


def is_running() -> bool:
    return any(thread.name == "msm-fast-prober" for thread in threading.enumerate())


def test_a_node_that_goes_down_while_another_is_down_for_long_is_probed_in_its_own_time(
    ctx: Context, prober: Prober, probed: list[str]
) -> None:
    lose(ctx, prober, "n1")
    wait_until(lambda: probed == ["n1"])
    lose(ctx, prober, "n2")
    wait_until(lambda: probed == ["n1", "n2"])


def test_distribution_that_is_started_again_does_not_wait_for_the_next_probe(
    ctx: Context, prober: Prober, probed: list[str]
) -> None:
    lose(ctx, prober, "n1")
    wait_until(lambda: probed == ["n1"])
    ctx.distribution.stop("by the operator")
    ctx.distribution.start()
    prober.wake()
    wait_until(lambda: "reconnected" in probed)


def test_while_no_thread_can_be_started_requests_go_on_and_try_again(
    ctx: Context, prober: Prober, probed: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        lose(ctx, prober, "n1")
        prober.wake()
        assert prober.is_wanted
        prober.close(0)
        assert caplog.text.count("can't start new thread") == 1
    prober.renew()
    assert not is_running(), "it was closed"


def test_the_next_request_starts_the_thread_that_could_not_be_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with SessionManager(NODES, reconnect=Reconnect(first=LONG_S, cap=LONG_S)) as manager:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", fail)
            with manager.request(None) as session:
                session["user"] = "ada"
        assert not is_running()
        with manager.request(None) as session:
            session["user"] = "ada"
        wait_until(is_running)


def test_a_reconnection_that_the_end_of_the_manager_breaks_off_is_no_error(
    ctx: Context, caplog: pytest.LogCaptureFixture
) -> None:
    def reconnect() -> None:
        ctx.is_closed = True
        raise OSError("it is closed")

    prober = Prober(ctx, lambda node: None, reconnect)
    ctx.distribution.stop("by the operator")
    ctx.distribution.start()
    prober.wake()
    wait_until(lambda: ctx.is_closed)
    prober.close(10)
    assert "failed" not in caplog.text


def test_a_manager_that_is_used_after_its_end_says_that_nodes_are_not_probed_any_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with SessionManager(NODES, reconnect=Reconnect(first=LONG_S, cap=LONG_S)) as manager:
        pass
    with manager.request(None) as session:
        session["user"] = "ada"
    told = [record.message for record in caplog.records if record.name == "msm_fast.manager"]
    assert sorted("n2" in line for line in told) == [False, True], "of each node, whichever the session was to be on"
    assert all("was closed" in line for line in told)


def test_nothing_is_said_of_nodes_that_go_down_before_that(caplog: pytest.LogCaptureFixture) -> None:
    with (
        SessionManager(NODES, reconnect=Reconnect(first=LONG_S, cap=LONG_S)) as manager,
        manager.request(None) as session,
    ):
        session["user"] = "ada"
    assert not [record for record in caplog.records if record.name == "msm_fast.manager"]
