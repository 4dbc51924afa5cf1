"""Where hosts are, with a name server that does as it is told."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from msm_fast import Node
from msm_fast.drivers.addresses import Address, AddressBook

LONG_S = 10
NODE = Node("n1", "cache.example", 11211)


def address(last: int, port: int = 11211) -> Address:
    return socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (f"10.0.0.{last}", port)


class NameServer:
    """Answers getaddrinfo. hosts: addresses, or what is raised. It hangs while `answers` is not set."""

    def __init__(self) -> None:
        self.hosts: dict[str, list[Address] | Exception] = {NODE.host: [address(1), address(2)]}
        self.answers = threading.Event()
        self.answers.set()
        self.hanging: set[str] = {NODE.host}
        self.asked: list[str] = []
        self.threads: set[threading.Thread] = set()

    def getaddrinfo(self, host: str, *_: object) -> list[Address]:
        self.asked.append(host)
        self.threads.add(threading.current_thread())
        if host in self.hanging:
            self.answers.wait(LONG_S)
        found = self.hosts.get(host, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def name_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameServer]:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    yield server
    server.answers.set()
    for thread in server.threads:
        thread.join(LONG_S)


@pytest.fixture
def book(name_server: NameServer) -> AddressBook:
    return AddressBook()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def test_a_name_is_looked_up_once_and_never_by_who_asks(book: AddressBook, name_server: NameServer) -> None:
    for _ in range(3):
        assert book.of(NODE, LONG_S) == [address(1), address(2)]
    assert name_server.asked == [NODE.host]
    assert threading.current_thread() not in name_server.threads
    assert all(thread.daemon for thread in name_server.threads)


@pytest.mark.parametrize(
    ("host", "family", "where"),
    [
        ("10.1.2.3", socket.AF_INET, ("10.1.2.3", 11211)),
        ("2001:db8::1", socket.AF_INET6, ("2001:db8::1", 11211, 0, 0)),
    ],
)
def test_a_numeric_address_is_not_looked_up(
    book: AddressBook, name_server: NameServer, host: str, family: int, where: object
) -> None:
    node = Node("n1", host, 11211)
    ((found_family, kind, protocol, _, found),) = book.of(node, 0)
    assert (found_family, kind, protocol, found) == (family, socket.SOCK_STREAM, socket.IPPROTO_TCP, where)
    book.note_failure(node, book.of(node, 0)[0])
    book.refresh(node, LONG_S)
    book.refresh(Node("n1", "/run/memcached.sock"), LONG_S)
    assert name_server.asked == []


def test_an_address_with_a_zone_is_looked_up_since_a_socket_wants_the_number_of_its_zone() -> None:
    interface = socket.if_nameindex()[0]
    node = Node("n1", f"fe80::1%{interface[1]}", 11211)
    ((family, *_, found),) = AddressBook().of(node, LONG_S)
    assert (family, found[1:]) == (socket.AF_INET6, (11211, 0, interface[0]))


def test_a_lookup_that_hangs_is_waited_for_only_so_long_and_holds_up_no_other_host(
    book: AddressBook, name_server: NameServer
) -> None:
    other = Node("n2", "other.example", 11211)
    name_server.hosts[other.host] = [address(9)]
    name_server.answers.clear()
    started = time.monotonic()
    with pytest.raises(TimeoutError, match=NODE.host):
        book.of(NODE, 0.02)
    assert 0.02 <= time.monotonic() - started < 1
    assert book.of(other, LONG_S) == [address(9)]
    name_server.answers.set()
    assert book.of(NODE, LONG_S) == [address(1), address(2)]
    assert name_server.asked.count(NODE.host) == 1


def test_however_many_wait_for_a_host_there_is_one_lookup(book: AddressBook, name_server: NameServer) -> None:
    name_server.answers.clear()
    found: list[list[Address]] = []
    waiting = [threading.Thread(target=lambda: found.append(book.of(NODE, LONG_S))) for _ in range(8)]
    for thread in waiting:
        thread.start()
    wait_until(lambda: bool(name_server.asked))
    name_server.answers.set()
    for thread in waiting:
        thread.join(LONG_S)
    assert found == [[address(1), address(2)]] * 8
    assert len(name_server.asked) == 1


@pytest.mark.parametrize(
    "answer", [socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), UnicodeError("label too long"), []]
)
def test_a_host_that_is_not_found_is_an_error_until_it_is(
    book: AddressBook, name_server: NameServer, answer: list[Address] | Exception
) -> None:
    name_server.hosts[NODE.host] = answer
    for n in (1, 2):
        with pytest.raises(OSError, match=r"Temporary|label|no address"):
            book.of(NODE, LONG_S)
        assert len(name_server.asked) == n
    name_server.hosts[NODE.host] = [address(3)]
    assert book.of(NODE, LONG_S) == [address(3)]


def test_an_address_that_failed_is_tried_last_also_after_the_next_lookup(
    book: AddressBook, name_server: NameServer
) -> None:
    book.of(NODE, LONG_S)
    name_server.answers.clear()
    book.note_failure(NODE, address(1))
    assert book.of(NODE, 0) == [address(2), address(1)]
    name_server.answers.set()
    book.refresh(NODE, LONG_S)
    assert book.of(NODE, 0) == [address(2), address(1)]


def test_after_a_failure_the_host_is_looked_up_again_in_the_background(
    book: AddressBook, name_server: NameServer
) -> None:
    book.of(NODE, LONG_S)
    name_server.hosts[NODE.host] = [address(7)]
    book.note_failure(NODE, address(1))
    wait_until(lambda: book.of(NODE, 0) == [address(7)])


def test_a_host_that_is_looked_up_again_is_waited_for(book: AddressBook, name_server: NameServer) -> None:
    book.of(NODE, LONG_S)
    name_server.hosts[NODE.host] = [address(7)]
    threading.Timer(0.02, name_server.answers.set).start()
    name_server.answers.clear()
    book.refresh(NODE, LONG_S)
    assert book.of(NODE, 0) == [address(7)]


def test_what_was_known_stays_while_a_host_cannot_be_looked_up(book: AddressBook, name_server: NameServer) -> None:
    book.of(NODE, LONG_S)
    name_server.hosts[NODE.host] = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
    book.refresh(NODE, LONG_S)
    assert book.of(NODE, 0) == [address(1), address(2)]
    name_server.answers.clear()
    started = time.monotonic()
    book.refresh(NODE, 0.02)
    assert time.monotonic() - started < 1
    assert book.of(NODE, 0) == [address(1), address(2)]


def test_hosts_that_no_node_has_any_more_are_forgotten(book: AddressBook, name_server: NameServer) -> None:
    book.of(NODE, LONG_S)
    book.keep_only([Node("n2", "other.example", 11211)])
    book.note_failure(NODE, address(1))
    assert name_server.asked == [NODE.host]
    book.of(NODE, LONG_S)
    assert len(name_server.asked) == 2


def test_where_no_thread_can_be_started_the_host_is_an_error(
    book: AddressBook, name_server: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(OSError, match="can't start new thread"):
            book.of(NODE, LONG_S)
    assert book.of(NODE, LONG_S) == [address(1), address(2)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_its_parents_lookup(book: AddressBook, name_server: NameServer) -> None:
    name_server.answers.clear()
    with pytest.raises(TimeoutError):
        book.of(NODE, 0.01)
    child = os.fork()
    if child == 0:
        is_found = False
        try:
            name_server.hanging.clear()
            book.renew_after_fork()
            is_found = book.of(NODE, LONG_S) == [address(1), address(2)]
        finally:
            os._exit(0 if is_found else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
