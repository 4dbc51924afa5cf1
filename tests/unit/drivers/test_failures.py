"""What an error of the network, or of this process, is taken for."""

import asyncio
import errno
import os
import socket
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from msm_fast import Node, Timeouts
from msm_fast._core import wire
from msm_fast.drivers.asynchronous import AsyncDriver
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.failures import GONE, cannot_connect, cannot_find
from msm_fast.engine.effects import Batch, Budget, NodeFailure, Outcome


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT])
def test_a_host_that_says_no_is_believed(number: int) -> None:
    failure = cannot_connect(error_of(number))
    assert (failure.kind, failure.sent) == ("refused", False)


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPERM, errno.EACCES, errno.EAGAIN])
def test_what_no_host_has_said_means_that_it_is_not_reached(number: int) -> None:
    failure = cannot_connect(error_of(number))
    assert (failure.kind, failure.sent) == ("unreachable", False)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL])
def test_what_this_process_lacks_is_no_fault_of_the_node_and_is_told(number: int) -> None:
    for failure in (cannot_connect(error_of(number)), cannot_find("cache", error_of(number))):
        assert (failure.kind, failure.sent) == ("exhausted", False)
        assert "this process has no" in failure.detail or "this host has no" in failure.detail
        assert os.strerror(number) in failure.detail


def test_a_name_that_is_not_known_means_that_its_host_is_not_reached() -> None:
    failure = cannot_find("cache", OSError("not known"))
    assert (failure.kind, failure.sent) == ("unreachable", False)
    assert "cache" in failure.detail


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others refuse")
def test_a_unix_socket_whose_server_has_no_room_for_a_connection_is_told_as_such_by_either_driver(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "socket")
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        for outcome in by_both_drivers({"n1": Node("n1", path)}):
            assert isinstance(outcome, NodeFailure)
            assert (outcome.kind, outcome.sent) == ("unreachable", False)
            assert os.strerror(errno.EAGAIN) in outcome.detail


def test_a_node_that_is_gone_is_told_as_such_by_either_driver() -> None:
    assert by_both_drivers({}) == [GONE, GONE]


def by_both_drivers(nodes: dict[str, Node]) -> list[Outcome]:
    """Return what each driver is told when it asks n1."""
    batches = [Batch("n1", [wire.noop()])]

    async def ask_in_loop() -> list[Outcome]:
        return await AsyncDriver(nodes, Timeouts()).exchange(batches, Budget(1.0))

    with closing(BlockingDriver(nodes, Timeouts())) as driver:
        return [*driver.exchange(batches, Budget(1.0)), *asyncio.run(ask_in_loop())]
