"""What TLS may wait for, and how it looks to who uses a plain socket."""

import select
import socket
import ssl
import time
from collections.abc import Iterator
from typing import Any

import pytest

from msm_fast._core import wire
from msm_fast.drivers.access import Credentials
from msm_fast.drivers.failures import ConnectionFailed
from msm_fast.drivers.greeting import greet
from msm_fast.drivers.secure_socket import SecureSocket
from msm_fast.drivers.tls_records import lengths_of_writes

READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class Scripted:
    """An SSL socket that does as a script says: exceptions are raised, anything else is returned.

    script: what the next calls do, whatever they are. The descriptor is real: it can be written to, and has nothing to
    read unless the other end has written.
    """

    def __init__(self, *script: Any) -> None:
        self.sock, self.peer = socket.socketpair()
        self.script = list(script)
        self.sent: list[bytes] = []
        self.n_pending = 0

    def do_handshake(self) -> None:
        self._next()

    def recv(self, n_bytes: int) -> Any:
        return self._next()

    def send(self, data: memoryview) -> Any:
        self.sent.append(bytes(data))
        return self._next()

    def pending(self) -> int:
        return self.n_pending

    def fileno(self) -> int:
        return self.sock.fileno()

    def setblocking(self, is_blocking: bool) -> None:
        assert not is_blocking

    def close(self) -> None:
        self.sock.close()
        self.peer.close()

    def _next(self) -> Any:
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


@pytest.fixture
def scripted() -> Iterator[Scripted]:
    scripted = Scripted()
    yield scripted
    scripted.close()


@pytest.fixture
def secure(scripted: Scripted) -> SecureSocket:
    return SecureSocket(scripted)  # type: ignore[arg-type]


def test_what_cannot_be_done_yet_looks_as_on_a_plain_socket(scripted: Scripted, secure: SecureSocket) -> None:
    for error in (ssl.SSLWantReadError(), ssl.SSLWantWriteError()):
        scripted.script = [error, error]
        with pytest.raises(BlockingIOError):
            secure.recv(10)
        with pytest.raises(BlockingIOError):
            secure.send(b"mn\r\n")


def test_what_tls_has_read_already_is_there_though_the_descriptor_has_nothing(
    scripted: Scripted, secure: SecureSocket
) -> None:
    assert not secure.poll(0)
    scripted.n_pending = 1
    assert secure.poll(10_000)


def test_a_read_that_must_write_first_waits_for_that_and_no_longer(scripted: Scripted, secure: SecureSocket) -> None:
    scripted.script = [ssl.SSLWantWriteError(), b"MN\r\n"]
    with pytest.raises(BlockingIOError):
        secure.recv(10)
    assert secure.poll(10_000)
    assert secure.recv(10) == b"MN\r\n"
    assert not secure.poll(0)


def test_a_write_that_must_read_first_does_not_spin(scripted: Scripted, secure: SecureSocket) -> None:
    scripted.script = [ssl.SSLWantReadError(), 4]
    with pytest.raises(BlockingIOError):
        secure.send(b"mn\r\n")
    secure.modify(secure, READABLE | select.POLLOUT)
    assert not secure.poll(0)
    scripted.peer.send(b"x")
    assert secure.poll(10_000)
    assert secure.send(b"mn\r\n") == 4
    assert secure.poll(0)[0][1] & select.POLLOUT


def test_who_waits_for_several_is_told_of_what_tls_has_read_already(scripted: Scripted, secure: SecureSocket) -> None:
    assert not secure.be_waited_for(select.poll(), READABLE)
    scripted.n_pending = 1
    assert secure.be_waited_for(select.poll(), READABLE)


def test_who_waits_for_several_waits_for_what_tls_needs_first(scripted: Scripted, secure: SecureSocket) -> None:
    scripted.script = [ssl.SSLWantReadError()]
    with pytest.raises(BlockingIOError):
        secure.send(b"mn\r\n")
    poller = select.poll()
    secure.be_waited_for(poller, READABLE | select.POLLOUT)
    assert not poller.poll(0)
    scripted.peer.send(b"x")
    assert poller.poll(10_000)


def test_who_waits_for_several_is_told_when_one_can_be_written_to(scripted: Scripted, secure: SecureSocket) -> None:
    poller = select.poll()
    assert not secure.be_waited_for(poller, READABLE | select.POLLOUT)
    assert poller.poll(10_000) == [(secure.fileno(), select.POLLOUT)]


def test_a_write_ends_at_each_cut_and_is_repeated_as_it_was(scripted: Scripted, secure: SecureSocket) -> None:
    secure.cut([3, 5, 2])
    scripted.script = [3, 2, ssl.SSLWantWriteError(), 3, 2, 4]
    assert secure.send(b"aaabbbbbcc") == 5
    assert secure.send(b"bbbcc") == 5
    assert scripted.sent == [b"aaa", b"bbbbb", b"bbb", b"bbb", b"cc"]
    assert secure.send(b"next") == 4


def test_a_handshake_waits_for_what_it_needs_until_its_deadline(scripted: Scripted, secure: SecureSocket) -> None:
    scripted.script = [ssl.SSLWantWriteError(), None]
    secure.handshake(time.monotonic() + 10)
    assert not secure.poll(0), "it waits for nothing to be written any more"
    scripted.script = [ssl.SSLWantReadError()]
    with pytest.raises(ConnectionFailed) as caught:
        secure.handshake(time.monotonic())
    assert (caught.value.kind, caught.value.sent) == ("timeout", False)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConnectionResetError(), "reset"),
        (ssl.SSLEOFError(), "reset"),
        (ssl.SSLError("wrong version number"), "unsupported"),
        (ValueError("no such name"), "unsupported"),
    ],
)
def test_a_handshake_that_fails_says_why(scripted: Scripted, secure: SecureSocket, error: Exception, kind: str) -> None:
    scripted.script = [error]
    with pytest.raises(ConnectionFailed) as caught:
        secure.handshake(time.monotonic() + 10)
    assert (caught.value.kind, caught.value.sent) == (kind, False)


# -- where writes are cut


@pytest.mark.parametrize("value_bytes", [0, 100, 5_000, 16_384, 100_000])
def test_a_write_carries_whole_commands_in_one_record_or_a_single_one(value_bytes: int) -> None:
    commands = [wire.get(b"k"), wire.store(b"k", b"v" * value_bytes, 1, 0)] * 10
    data = wire.encode(commands, 95)
    lengths = lengths_of_writes(data, commands, 95)
    assert sum(lengths) == len(data)
    at = 0
    for length in lengths:
        piece = data[at : at + length]
        assert piece.startswith((b"mg ", b"ms "))
        assert piece.endswith(b"\r\n")
        assert length <= 1 << 14 or (piece.startswith(b"ms ") and b"mg k" not in piece)
        at += length


# -- the first words


def test_the_answer_to_a_password_may_come_in_pieces() -> None:
    dialogue = greet(Credentials("ada:pw"))
    assert next(dialogue) == b"set msm_fast:auth: 0 -1 6\r\nada pw\r\n"
    assert dialogue.send(b"STO") == b""
    assert dialogue.send(b"RED\r") == b""
    assert dialogue.send(b"\n").startswith(b"version\r\n")


@pytest.mark.parametrize(
    ("answer", "kind", "words"),
    [
        (b"CLIENT_ERROR authentication failure\r\n", "unsupported", "authfile"),
        (b"ERROR Too many open connections\r\n", "refused", "memcached -c"),
        (b"SERVER_ERROR not now\r\n", "unsupported", "not now"),
        (b"\xff" * 70_000, "unsupported", "not a memcached server"),
    ],
)
def test_a_password_that_is_not_taken_ends_the_greeting(answer: bytes, kind: str, words: str) -> None:
    dialogue = greet(Credentials("ada:pw"))
    next(dialogue)
    with pytest.raises(ConnectionFailed, match=words) as caught:
        dialogue.send(answer)
    assert caught.value.kind == kind
    assert len(str(caught.value)) < 500
