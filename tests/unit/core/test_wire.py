"""What memcached is asked: commands, and batches of them as bytes."""

import math

import pytest

from msm_fast._core import wire
from msm_fast._core.replies import ReplyParser
from msm_fast._core.wire import Command

GET, STORE, DELETE = wire.get(b"k"), wire.store(b"k", b"v", 0, 0), wire.delete(b"k")


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (wire.get(b"key"), b"mg key v c f t O5\r\n"),
        (wire.get(b"key", 1800), b"mg key v c f t T1800 O5\r\n"),
        (wire.get(b"key", 0, value=False), b"mg key c f t T0 O5\r\n"),
        (wire.get(b"key", cas=2**64 - 1), b"mg key v c f t C18446744073709551615 O5\r\n"),
        (wire.get(b"key", 1800, cas=9), b"mg key v c f t T1800 C9 O5\r\n"),
        (wire.store(b"key", b"value", 7, 60), b"ms key 5 c F7 T60 O5\r\nvalue\r\n"),
        (wire.store(b"key", b"", 0, 0), b"ms key 0 c F0 T0 O5\r\n\r\n"),
        (wire.store(b"key", b"\r\n", 0, 0, cas=9), b"ms key 2 c F0 T0 C9 O5\r\n\r\n\r\n"),
        (wire.store(b"key", b"v", 1, 0, add=True), b"ms key 1 c F1 T0 ME O5\r\nv\r\n"),
        (wire.delete(b"key"), b"md key O5\r\n"),
        (wire.delete(b"key", cas=0), b"md key C0 O5\r\n"),
        (wire.noop(), b"mn\r\n"),
        (wire.version(), b"version\r\n"),
    ],
)
def test_a_command_is_one_line_with_its_opaque(command, line):
    assert wire.encode([command], 5) == line


def test_the_touch_comes_after_the_question_for_the_ttl():
    flags = wire.encode([wire.get(b"key", 60)], 1).split()
    assert flags.index(b"t") < flags.index(b"T60")


def test_opaques_count_up_over_a_batch_and_wrap_at_64_bits():
    batch = [GET, wire.noop(), GET, GET]
    top = 2**64 - 1
    assert wire.encode(batch, top - 1).split(b"\r\n")[:-1] == [
        b"mg k v c f t O18446744073709551614",
        b"mn",
        b"mg k v c f t O0",
        b"mg k v c f t O1",
    ]
    parser = ReplyParser(batch, top - 1)
    assert parser.feed(b"EN O18446744073709551614\r\nMN\r\nEN O0\r\nEN O1\r\n")


def test_a_batch_may_be_any_sequence_or_empty():
    assert wire.encode((GET,), 1) == wire.encode([GET], 1)
    assert wire.encode([], 1) == b""
    assert ReplyParser([], 1).feed(b"")


def test_commands_tell_their_verb_and_key_and_not_more():
    for command, verb, key in (
        (GET, "mg", b"k"),
        (STORE, "ms", b"k"),
        (DELETE, "md", b"k"),
        (wire.noop(), "mn", b""),
        (wire.version(), "version", b""),
    ):
        assert (command.verb, command.key) == (verb, key)
        assert repr(command) == f"<Command {verb}>"
        with pytest.raises(AttributeError):
            command.key = b"other"


@pytest.mark.parametrize(
    "key",
    [
        b"",
        b"k" * 251,
        b"a b",
        b"a\r\nb",
        b"a\n",
        b"a\0",
        b"\t",
        b"\x1f",
        b"\x7f",
        b"\x80",
        "ä".encode(),
        b" ",
        b"a ",
    ],
)
def test_a_key_that_memcached_would_misread_makes_no_command(key):
    for make in (wire.get, wire.delete, lambda key: wire.store(key, b"", 0, 0)):
        with pytest.raises(ValueError, match="key") as caught:
            make(key)
        assert repr(key) not in str(caught.value)


def test_every_printable_character_and_250_bytes_make_a_key():
    printable = bytes(range(0x21, 0x7F))
    assert wire.get(printable).key == printable
    longest = wire.store(b"k" * 250, b"", 2**32 - 1, 2**31 - 1, 2**64 - 1)
    assert wire.encode([longest], 2**64 - 1) == (
        b"ms " + b"k" * 250 + b" 0 c F4294967295 T2147483647 C18446744073709551615 O18446744073709551615\r\n\r\n"
    )


def test_a_value_longer_than_any_server_takes_makes_no_command():
    with pytest.raises(ValueError, match="at most"):
        wire.store(b"k", bytes((1 << 30) + 1), 0, 0)


def test_the_longest_command_line_is_far_from_what_a_server_hangs_up_on():
    longest = wire.store(b"k" * 250, b"", 2**32 - 1, 2**31 - 1, 2**64 - 1)
    assert len(wire.encode([longest], 2**64 - 1)) < 2048


def test_no_command_is_one_whose_answer_may_be_missing():
    """Neither noreply nor quiet: each command has exactly one reply, and all but two carry an opaque."""
    batch = [
        wire.get(b"k", 60, cas=1),
        wire.get(b"k", value=False),
        STORE,
        wire.store(b"k", b"", 0, 0, add=True),
        DELETE,
    ]
    for line in wire.encode(batch, 7).replace(b"\r\nv\r\n", b"\r\n").split(b"\r\n"):
        flags = line.split()[2:]
        assert not {b"q", b"k", b"noreply"} & set(flags)
        assert not flags or flags[-1].startswith(b"O")


@pytest.mark.parametrize("exptime", [-1, 2592001, 10**9, 2**31, 2**63, 10**30])
def test_an_exptime_that_memcached_would_misread_makes_no_command(exptime):
    for make in (lambda: wire.get(b"k", exptime), lambda: wire.store(b"k", b"", 0, exptime)):
        with pytest.raises(ValueError, match="exptime"):
            make()


@pytest.mark.parametrize(
    ("name", "number"),
    [("client_flags", -1), ("client_flags", 2**32), ("cas", -1), ("cas", 2**64)],
)
def test_a_number_over_its_width_makes_no_command(name, number):
    with pytest.raises(ValueError, match=name):
        wire.store(b"k", b"", **{"client_flags": 0, "exptime": 0, name: number})


def test_other_arguments_that_make_no_sense_make_no_command():
    with pytest.raises(ValueError, match="cas and add"):
        wire.store(b"k", b"", 0, 0, cas=1, add=True)
    with pytest.raises(ValueError, match="without value"):
        wire.get(b"k", value=False, cas=1)
    for first_opaque in (-1, 2**64):
        with pytest.raises(ValueError, match="first_opaque"):
            wire.encode([GET], first_opaque)
        with pytest.raises(ValueError, match="first_opaque"):
            ReplyParser([GET], first_opaque)
    for call in (
        lambda: wire.get("k"),
        lambda: wire.get(None),
        lambda: wire.store(b"k", "v", 0, 0),
        lambda: wire.store(b"k", None, 0, 0),
        lambda: wire.get(b"k", 1.5),
        lambda: wire.get(b"k", cas="1"),
        lambda: wire.encode([b"mg k"], 1),
        lambda: wire.encode([Command.__new__(Command)], 1),
        lambda: ReplyParser([None], 1),
        lambda: ReplyParser([GET], 1).feed(bytearray(b"EN O1\r\n")),
        Command,
    ):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize(
    ("ttl_s", "expected"),
    [
        (None, 0),
        (0, 0),
        (0.0, 0),
        (1, 1),
        (1e-9, 1),
        (1.5, 2),
        (2592000, 2592000),
        (2591999.5, 2592000),
        (2592000.5, 1_702_592_001),
        (2592001, 1_702_592_001),
        (10**8, 1_800_000_000),
        (447_483_647, 2**31 - 1),
        (10**9, 2**31 - 1),
        (1e300, 2**31 - 1),
    ],
)
def test_an_exptime_is_relative_up_to_30_days_then_a_time_of_day(ttl_s, expected):
    assert wire.exptime(ttl_s, 1_700_000_000.0) == expected


@pytest.mark.parametrize(
    ("ttl_s", "now_s"), [(-1, 1.7e9), (math.nan, 1.7e9), (math.inf, 1.7e9), (2592001, 0), (2592001, math.nan)]
)
def test_a_ttl_that_makes_no_sense_has_no_exptime(ttl_s, now_s):
    with pytest.raises(ValueError, match=r"ttl_s|now_s"):
        wire.exptime(ttl_s, now_s)
