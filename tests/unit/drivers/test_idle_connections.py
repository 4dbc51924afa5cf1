"""Idle connections and round trips over them, on sockets whose other end is the test's."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from msm_fast._core import wire
from msm_fast.drivers.exchange import PlainConnection
from msm_fast.drivers.idle_connections import IdleConnections
from msm_fast.drivers.node_lives import NodeLives
from msm_fast.engine.effects import Batch

PATIENCE_S = 10.0
BUSY_POLL_S = 0.0001
SLOW_S = 0.05
"""Longer than this machine, busy as it may be, keeps a thread from its turn."""
GET = Batch("n1", [wire.get(b"k")])


class Ends(PlainConnection):
    """A connection, and the node's end of it."""

    def __init__(self) -> None:
        self.ours, self.nodes = socket.socketpair()
        self.ours.setblocking(False)
        self.nodes.settimeout(PATIENCE_S)
        self.fd = self.ours.fileno()
        self.life, self.opaque, self.is_closed = 1, 1, False

    def close(self) -> None:
        self.is_closed = True
        self.ours.close()

    def be_asked(self) -> None:
        assert self.nodes.recv(1000).startswith(b"mg k")

    def answer(self, opaque: int = 1) -> None:
        """Be the node for one question."""
        self.be_asked()
        self.nodes.sendall(b"EN O%d\r\n" % opaque)


@pytest.fixture(params=[0.0, 0.5], ids=["polled", "waiting_in_the_socket"])
def connections(request: pytest.FixtureRequest) -> Iterator[Callable[[], Ends]]:
    made: list[Ends] = []

    def make() -> Ends:
        made.append(Ends())
        made[-1].set_waiting(request.param, BUSY_POLL_S)
        return made[-1]

    yield make
    for ends in made:
        ends.close()
        ends.nodes.close()


def idle_of(*nodes: str, most: int = 2) -> IdleConnections:
    return IdleConnections(nodes, most, NodeLives())


def until() -> float:
    return time.monotonic() + PATIENCE_S


def ask(idle: IdleConnections, connection: Ends, opaque: int, delay_s: float = 0.0) -> None:
    """Make a round trip to a node that takes at least so long, and see that it is answered."""
    node = threading.Timer(delay_s, connection.answer, (opaque,))
    node.start()
    outcomes, in_use = idle.exchange([GET], until())
    node.join()
    assert outcomes is not None
    assert [reply.status for reply in outcomes[0]] == ["EN"]
    assert in_use is None


def test_a_connection_is_kept_for_its_node_and_taken_once(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1", "n2"), connections()
    assert idle.put("n1", connection)
    assert idle.pop("n2") is None
    assert idle.pop("n1") is connection
    assert idle.pop("n1") is None


def test_no_more_are_kept_than_a_node_may_have_and_none_of_a_node_that_is_not_there(
    connections: Callable[[], Ends],
) -> None:
    idle = idle_of("n1", most=1)
    assert idle.put("n1", connections())
    assert not idle.put("n1", connections())
    assert not idle.put("n9", connections())


def test_nodes_that_go_give_their_connections_back(connections: Callable[[], Ends]) -> None:
    idle, kept, gone = idle_of("n1", "n2"), connections(), connections()
    idle.put("n1", kept)
    idle.put("n2", gone)
    assert idle.change_nodes(["n1", "n3"], {"n1"}) == [gone]
    assert idle.pop("n1") is kept
    assert not idle.put("n2", gone)


def test_a_round_trip_leaves_the_connection_idle_again(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    for opaque in (1, 2):
        ask(idle, connection, opaque)
    assert idle.pop("n1") is connection


def test_one_that_has_said_something_unasked_is_not_written_to(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    connection.nodes.sendall(b"EN O1\r\n")
    assert idle.exchange([GET], until()) == (None, None)
    connection.nodes.setblocking(False)
    with pytest.raises(BlockingIOError):
        connection.nodes.recv(1)


def test_where_one_is_missing_nothing_is_written_and_none_is_taken(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1", "n2"), connections()
    idle.put("n1", connection)
    assert idle.exchange([GET, Batch("n2", [wire.get(b"k")])], until()) == (None, None)
    assert idle.pop("n1") is connection


def test_what_is_no_plain_socket_or_of_another_life_is_left_to_others(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    assert idle.exchange([Batch("n1", [wire.get(b"k")], 2)], until()) == (None, None)
    connection.fd = -1
    assert idle.exchange([GET], until()) == (None, None)


def test_more_nodes_than_fit_on_the_stack_are_left_to_others(connections: Callable[[], Ends]) -> None:
    nodes = [f"n{i}" for i in range(5)]
    idle = idle_of(*nodes)
    for node in nodes:
        idle.put(node, connections())
    assert idle.exchange([Batch(node, [wire.get(b"k")]) for node in nodes], until()) == (None, None)


def test_an_answer_that_does_not_come_leaves_its_connection_to_be_gone_on_with(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    outcomes, in_use = idle.exchange([GET], time.monotonic())
    assert outcomes == [None]
    assert in_use == [connection]
    assert connection.parser is not None
    assert idle.pop("n1") is None


def test_what_the_socket_did_not_take_is_still_to_be_written(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    large = wire.store(b"k", bytes(8 << 20), 1, 60)
    outcomes, in_use = idle.exchange([Batch("n1", [large])], until())
    assert outcomes == [None]
    assert in_use == [connection]
    assert connection.unsent is not None
    assert 0 < len(connection.unsent) < 8 << 20


def test_a_connection_whose_nodes_were_changed_meanwhile_is_closed(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)

    def change_and_answer() -> None:
        connection.be_asked()
        idle.change_nodes(["n1"], ())
        connection.nodes.sendall(b"EN O1\r\n")

    node = threading.Thread(target=change_and_answer)
    node.start()
    outcomes, in_use = idle.exchange([GET], until())
    node.join()
    assert outcomes is not None
    assert in_use is None
    assert connection.is_closed
    assert idle.pop("n1") is None


def test_all_nodes_together_have_no_longer_than_until_then(connections: Callable[[], Ends]) -> None:
    idle, slow, silent = idle_of("n1", "n2"), connections(), connections()
    idle.put("n1", slow)
    idle.put("n2", silent)
    node = threading.Timer(0.4, slow.answer)
    node.start()
    started = time.monotonic()
    outcomes, in_use = idle.exchange([GET, Batch("n2", [wire.get(b"k")])], started + 0.5)
    took_s = time.monotonic() - started
    node.join()
    assert outcomes is not None
    assert [outcome is None for outcome in outcomes] == [False, True]
    assert in_use == [slow, silent]
    assert took_s < 0.5 + 0.2


def test_an_answer_that_takes_longer_than_most_is_waited_for_all_the_same(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    ask(idle, connection, 1, 0.6)


def test_a_node_that_is_never_quick_is_mostly_waited_for_asleep(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    rests = []
    for opaque in range(1, 4 + 16 + 1 + 1):
        ask(idle, connection, opaque, SLOW_S)
        rests.append(connection.rest)
    assert rests == [0, 0, 0, *range(16, -1, -1), 32]


def test_without_busy_polling_it_is_never_tried(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    connection.set_waiting(0.5, 0)
    idle.put("n1", connection)
    for opaque in range(1, 6):
        ask(idle, connection, opaque, SLOW_S)
    assert (connection.misses, connection.rest) == (0, 0)


def test_a_node_that_is_quick_again_is_waited_for_awake_again(connections: Callable[[], Ends]) -> None:
    idle, connection = idle_of("n1"), connections()
    idle.put("n1", connection)
    for opaque in range(1, 6):
        ask(idle, connection, opaque, SLOW_S)
    assert connection.misses == 4
    ends_at = until()
    while connection.misses and time.monotonic() < ends_at:
        opaque += 1
        ask(idle, connection, opaque)
    assert connection.misses == 0


@pytest.mark.parametrize("size", [100, 9_000, 40_000, 400_000])
@pytest.mark.parametrize("n_nodes", [1, 2, 3, 4])
def test_values_of_any_size_come_from_several_nodes_at_once(
    connections: Callable[[], Ends], n_nodes: int, size: int
) -> None:
    nodes = [f"n{i}" for i in range(n_nodes)]
    idle, values = idle_of(*nodes), [bytes([65 + i]) * size for i in range(n_nodes)]
    threads = []
    for node, value in zip(nodes, values, strict=True):
        connection = connections()
        idle.put(node, connection)

        def answer(connection: Ends = connection, value: bytes = value) -> None:
            connection.be_asked()
            connection.nodes.sendall(b"VA %d c1 f1 t1 O1\r\n" % len(value) + value + b"\r\n")

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
    outcomes, in_use = idle.exchange([Batch(node, [wire.get(b"k")]) for node in nodes], until())
    for thread in threads:
        thread.join()
    assert outcomes is not None
    assert in_use is None
    assert [replies[0].value for replies in outcomes] == values


def silent_one_and(other: Callable[[], Ends]) -> tuple[IdleConnections, Ends, Ends]:
    """Return connections to n1, which says nothing, and to n2."""
    idle, silent, spoken_to = idle_of("n1", "n2"), other(), other()
    idle.put("n1", silent)
    idle.put("n2", spoken_to)
    return idle, silent, spoken_to


def test_the_rest_of_what_one_node_is_told_does_not_wait_for_another_one_to_answer(
    connections: Callable[[], Ends],
) -> None:
    idle, silent, reader = silent_one_and(connections)
    large = wire.store(b"k", bytes(8 << 20), 1, 60)
    started = time.monotonic()
    outcomes, in_use = idle.exchange([GET, Batch("n2", [large])], started + 1.0)
    assert time.monotonic() - started < 0.5
    assert outcomes == [None, None]
    assert in_use == [silent, reader]
    assert reader.unsent is not None


def test_a_large_answer_of_one_node_does_not_wait_for_another_one_to_answer(connections: Callable[[], Ends]) -> None:
    idle, silent, talker = silent_one_and(connections)
    value = bytes(200_000)

    def answer_in_pieces() -> None:
        talker.be_asked()
        talker.nodes.sendall(b"VA %d c1 f1 t1 O1\r\n" % len(value))
        with contextlib.suppress(BrokenPipeError):
            for start in range(0, len(value), 20_000):
                time.sleep(0.005)
                talker.nodes.sendall(value[start : start + 20_000])
            talker.nodes.sendall(b"\r\n")

    talker.nodes.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    node = threading.Thread(target=answer_in_pieces)
    node.start()
    outcomes, in_use = idle.exchange([GET, Batch("n2", [wire.get(b"k")])], time.monotonic() + 1.0)
    talker.nodes.shutdown(socket.SHUT_RDWR)
    node.join()
    assert outcomes is not None
    assert outcomes[0] is None
    assert outcomes[1][0].value == value
    assert in_use == [silent, talker]


def test_a_node_that_says_more_than_can_be_read_is_listened_to_no_longer_than_until_then(
    connections: Callable[[], Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    idle, flooded = idle_of("n1"), connections()
    idle.put("n1", flooded)

    def flood() -> None:
        flooded.be_asked()
        flooded.nodes.sendall(b"VA 1073741824 c1 f1 t1 O1\r\n")
        with contextlib.suppress(OSError):
            while True:
                flooded.nodes.sendall(bytes(1 << 20))

    def read_clock_slowly() -> float:
        time.sleep(0.005)  # in which a buffer that was read is full again
        return time.monotonic()

    monkeypatch.setattr("msm_fast.drivers.exchange.monotonic", read_clock_slowly)
    node = threading.Thread(target=flood)
    node.start()
    started = time.monotonic()
    outcomes, _ = idle.exchange([GET], started + 0.1)
    took_s = time.monotonic() - started
    flooded.nodes.shutdown(socket.SHUT_RDWR)
    node.join()
    assert outcomes == [None]
    assert took_s < 0.1 + 0.2
