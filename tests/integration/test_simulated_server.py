"""The simulated server, on which every schedule of faults relies, against a memcached."""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msm_fast._core import wire
from msm_fast._core.replies import Reply, ReplyParser
from tests.memcached import Memcached
from tests.simulation.clock import VirtualClock
from tests.simulation.server import SimulatedServer

pytestmark = pytest.mark.memcached

Exchange = Callable[[list[wire.Command]], list[Reply]]
MakeCommand = Callable[[int], wire.Command]
"""From what the CAS values count: 0 for the simulated server, for the other what it has stored before."""

KEYS = st.sampled_from([b"a", b"b"])
CAS = st.none() | st.integers(1, 8)
VALUE = b"v" * 5000
EXPTIMES = st.sampled_from([0, 1000, 30 * 24 * 3600, 2**31 - 1])


@st.composite
def commands(draw: st.DrawFn) -> MakeCommand:
    key, cas = draw(KEYS), draw(CAS)

    def cas_from(first: int) -> dict[str, Any]:
        return {} if cas is None else {"cas": first + cas}

    match draw(st.sampled_from(["look", "get", "store", "add", "delete"])):
        case "look":
            exptime = draw(st.none() | EXPTIMES)
            return lambda first: wire.get(key, exptime, value=False)
        case "get":
            exptime = draw(st.none() | EXPTIMES)
            return lambda first: wire.get(key, exptime, **cas_from(first))
        case "delete":
            return lambda first: wire.delete(key, **cas_from(first))
        case verb:
            item = key, draw(st.binary(max_size=20)), draw(st.integers(0, 2**32 - 1)), draw(EXPTIMES)
            if verb == "add":
                return lambda first: wire.store(*item, add=True)
            return lambda first: wire.store(*item, **cas_from(first))


@contextmanager
def connected_to(server: Memcached) -> Iterator[Exchange]:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:

        def exchange(commands: list[wire.Command]) -> list[Reply]:
            parser = ReplyParser(commands, 7)
            connection.sendall(wire.encode(commands, 7))
            while not parser.feed(connection.recv(65536)):
                pass
            return parser.replies

        yield exchange
    server.stop()


@pytest.fixture(scope="module")
def exchange() -> Iterator[Exchange]:
    with connected_to(Memcached()) as exchange:
        yield exchange


def ask_simulated(server: SimulatedServer, *commands: wire.Command) -> list[Reply]:
    parser = ReplyParser(commands, 7)
    assert parser.feed(server.handle(wire.encode(commands, 7)))
    return parser.replies


def told(reply: Reply, first_cas: int) -> tuple[Any, ...]:
    return reply.status, reply.value, reply.client_flags, reply.cas and reply.cas - first_cas


@settings(max_examples=300)
@given(batches=st.lists(st.lists(commands(), min_size=1, max_size=5), max_size=6))
def test_it_answers_as_memcached_does(exchange: Exchange, batches: list[list[MakeCommand]]) -> None:
    *_, begin, version = exchange([wire.delete(b"a"), wire.delete(b"b"), wire.store(b"c", b"", 0, 0), wire.version()])
    major, minor, patch = (int(number) for number in version.text.split(".")[:3])
    clock = VirtualClock()
    clock.advance(time.time() - clock.wall())
    simulated = SimulatedServer(clock, (major, minor, patch))
    for batch in batches:
        real = exchange([make(begin.cas) for make in batch])
        own = [make(0) for make in batch]
        for answer, simulated_answer in zip(real, ask_simulated(simulated, *own), strict=True):
            assert told(answer, begin.cas) == told(simulated_answer, 0)
            assert answer.ttl_s == pytest.approx(simulated_answer.ttl_s, abs=0 if simulated_answer.ttl_s == -1 else 30)


@pytest.fixture(scope="module")
def exchange_with_full() -> Iterator[Exchange]:
    """Ask a server without memory for one more item of the size of VALUE."""
    with connected_to(Memcached("-M", "-m", "2")) as exchange:
        exchange([wire.store(b"a", VALUE, 1, 0)])
        for n in itertools.count():
            if exchange([wire.store(b"fill%d" % n, VALUE, 1, 0)])[0].status == "SERVER_ERROR":
                break
        yield exchange


@pytest.mark.parametrize(
    "flags", [{}, {"add": True}, {"cas": 2**40}], ids=["that is stored", "that is added", "that was another"]
)
def test_one_that_is_full_deletes_what_it_has_whatever_it_is_asked_for(
    exchange_with_full: Exchange, flags: dict[str, Any]
) -> None:
    simulated = SimulatedServer(VirtualClock())
    ask_simulated(simulated, wire.store(b"a", VALUE, 1, 0))
    simulated.room = 0
    commands = [
        wire.store(b"a", VALUE, 2, 0, **flags),
        wire.get(b"a"),
        wire.store(b"a", VALUE, 1, 0),  # there is room now for what has just been deleted
    ]
    real = [reply.status for reply in exchange_with_full(commands)]
    assert real == ["SERVER_ERROR", "EN", "HD"]
    assert [reply.status for reply in ask_simulated(simulated, *commands)] == real
