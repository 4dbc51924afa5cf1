"""What an error of the network, or of this process, is taken for."""

import asyncio
import errno
import os

import pytest

from msm_fast import Timeouts
from msm_fast._core import wire
from msm_fast.drivers.asynchronous import AsyncDriver
from msm_fast.drivers.blocking import BlockingDriver
from msm_fast.drivers.failures import GONE, cannot_connect, cannot_find
from msm_fast.engine.effects import Batch, Budget, Outcome


def error_of(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize("number", [errno.ECONNREFUSED, errno.ECONNRESET, errno.ENOENT])
def test_a_host_that_says_no_is_believed(number: int) -> None:
    assert cannot_connect(error_of(number)).kind == "refused"


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPERM, errno.EACCES, errno.EAGAIN])
def test_what_no_host_has_said_means_that_it_is_not_reached(number: int) -> None:
    assert cannot_connect(error_of(number)).kind == "unreachable"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL])
def test_what_this_process_lacks_is_no_fault_of_the_node_and_is_told(number: int) -> None:
    for failure in (cannot_connect(error_of(number)), cannot_find("cache", error_of(number))):
        assert (failure.kind, failure.sent) == ("exhausted", False)
        assert "this process has no" in failure.detail or "this host has no" in failure.detail
        assert os.strerror(number) in failure.detail


def test_a_name_that_is_not_known_means_that_its_host_is_not_reached() -> None:
    failure = cannot_find("cache", OSError("not known"))
    assert failure.kind == "unreachable"
    assert "cache" in failure.detail


def test_a_node_that_is_gone_is_told_as_such_by_either_driver() -> None:
    batches = [Batch("n1", [wire.noop()])]

    async def ask_in_loop() -> list[Outcome]:
        return await AsyncDriver({}, Timeouts()).exchange(batches, Budget(1.0))

    assert BlockingDriver({}, Timeouts()).exchange(batches, Budget(1.0)) == [GONE]
    assert asyncio.run(ask_in_loop()) == [GONE]
