import os
import socket
import time
from collections.abc import Iterator

import pytest

from msm_fast._core import wire
from msm_fast._core.replies import ReplyParser
from tests.memcached import Memcached

pytestmark = pytest.mark.memcached


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    server = Memcached()
    yield server.port
    server.stop()


@pytest.fixture
def exchange(port):
    """A function that sends commands in one write and returns their replies."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:

        def exchange(*commands, first_opaque=2**64 - 2):
            parser = ReplyParser(commands, first_opaque)
            connection.sendall(wire.encode(commands, first_opaque))
            while not parser.feed(connection.recv(65536)):
                pass
            return parser.replies

        exchange(wire.store(b"k", b"", 0, 0), wire.delete(b"k"))
        yield exchange


def statuses(replies):
    return [reply.status for reply in replies]


def test_a_stored_value_comes_back_with_its_flags_cas_and_ttl(exchange):
    stored, found = exchange(wire.store(b"k", b"\r\nEN\r\n", 2**32 - 1, 100), wire.get(b"k"))
    assert (stored.status, found.status) == ("HD", "VA")
    assert (found.value, found.client_flags) == (b"\r\nEN\r\n", 2**32 - 1)
    assert stored.cas == found.cas > 0
    assert 98 <= found.ttl_s <= 100


def test_a_read_without_the_value_brings_the_rest(exchange):
    _, found = exchange(wire.store(b"k", b"value", 7, 0), wire.get(b"k", value=False))
    assert (found.status, found.value, found.client_flags, found.ttl_s) == ("HD", None, 7, -1)


def test_a_read_that_names_the_cas_it_knows_brings_the_value_unless_the_server_can_leave_it_out(exchange):
    """From 1.6.40 on it can; before, the flag must be taken and mean nothing."""
    (stored,) = exchange(wire.store(b"k", b"value", 7, 0))
    same, other, version = exchange(wire.get(b"k", cas=stored.cas), wire.get(b"k", cas=stored.cas + 1), wire.version())
    can_leave_out = tuple(int(n) for n in version.text.split(".")[:3]) >= (1, 6, 40)
    assert (same.status, same.value) == (("HD", None) if can_leave_out else ("VA", b"value"))
    assert (same.cas, same.client_flags) == (stored.cas, 7)
    assert (other.status, other.value) == ("VA", b"value")


def test_the_ttl_is_what_was_left_before_the_touch(exchange):
    _, first, second = exchange(wire.store(b"k", b"v", 0, 100), wire.get(b"k", 1000), wire.get(b"k"))
    assert first.ttl_s <= 100
    assert 998 <= second.ttl_s <= 1000


def test_missing_items_are_told_apart_by_verb(exchange):
    commands = [wire.get(b"none"), wire.get(b"none", 60), wire.get(b"none", value=False)]
    assert statuses(exchange(*commands)) == ["EN"] * 3
    assert statuses(exchange(wire.delete(b"none"), wire.delete(b"none", cas=1))) == ["NF", "NF"]
    assert statuses(exchange(wire.store(b"none", b"v", 0, 0, cas=1), wire.get(b"none"))) == ["NF", "EN"]


def test_add_stores_only_where_nothing_is(exchange):
    replies = exchange(wire.store(b"k", b"1", 0, 0, add=True), wire.store(b"k", b"2", 0, 0, add=True), wire.get(b"k"))
    assert statuses(replies) == ["HD", "NS", "VA"]
    assert replies[2].value == b"1"


def test_cas_stores_only_over_what_was_seen(exchange):
    (first,) = exchange(wire.store(b"k", b"1", 0, 0))
    second, late = exchange(wire.store(b"k", b"2", 0, 0, cas=first.cas), wire.store(b"k", b"3", 0, 0, cas=first.cas))
    assert (second.status, late.status) == ("HD", "EX")
    assert exchange(wire.get(b"k"))[0].value == b"2"
    assert statuses(exchange(wire.delete(b"k", cas=first.cas), wire.delete(b"k", cas=second.cas))) == [
        "EX",
        "HD",
    ]


def test_an_oversize_store_is_a_server_error_and_the_connection_goes_on(exchange):
    stored, other, noop = exchange(wire.store(b"k", b"x" * (2 << 20), 0, 0), wire.get(b"other"), wire.noop())
    assert (stored.status, other.status, noop.status) == ("SERVER_ERROR", "EN", "MN")
    assert "too large" in stored.text


def test_a_big_value_arrives_whole(exchange):
    value = os.urandom(1_000_000)
    assert exchange(wire.store(b"k", value, 0, 0), wire.get(b"k"))[1].value == value


def test_a_version_is_read(exchange):
    version, noop = exchange(wire.version(), wire.noop())
    assert version.text[0].isdigit()
    assert noop.status == "MN"


@pytest.mark.parametrize("ttl_s", [1000, 2592000, 2592001, 10**8, 10**9, 10**11])
def test_a_long_ttl_does_not_expire_at_once(exchange, ttl_s):
    seconds = wire.exptime(ttl_s, time.time())
    stored, touched, found = exchange(
        wire.store(b"k", b"v", 0, seconds), wire.get(b"k", seconds), wire.get(b"k", value=False)
    )
    assert statuses([stored, touched, found]) == ["HD", "VA", "HD"]
    assert found.ttl_s >= min(ttl_s, 2**31 - 1 - time.time()) - 3


def test_the_longest_key_and_every_allowed_byte_are_taken(exchange):
    for key in (b"k" * 250, bytes(range(0x21, 0x7F))):
        assert statuses(exchange(wire.store(key, b"v", 0, 60), wire.get(key), wire.delete(key))) == [
            "HD",
            "VA",
            "HD",
        ]


def test_a_long_batch_is_answered_in_order(exchange):
    commands = [wire.store(b"key%d" % i, b"%d" % i, 0, 60) for i in range(500)]
    commands += [wire.get(b"key%d" % i) for i in range(500)]
    replies = exchange(*commands)
    assert [reply.value for reply in replies[500:]] == [b"%d" % i for i in range(500)]
