"""What memcached answers: bytes to replies, whatever arrives."""

import tracemalloc

import pytest

from msm_fast._core import wire
from msm_fast._core.replies import ProtocolError, Reply, ReplyParser

GET, PEEK, STORE, DELETE = wire.get(b"k"), wire.get(b"k", value=False), wire.store(b"k", b"v", 0, 0), wire.delete(b"k")


def read(commands, stream, first_opaque=1):
    parser = ReplyParser(commands, first_opaque)
    assert parser.feed(stream)
    return parser.replies


def feed_bytes(parser, stream):
    return [parser.feed(stream[i : i + 1]) for i in range(len(stream))]


def refusal(commands, stream, first_opaque=1):
    parser = ReplyParser(commands, first_opaque)
    with pytest.raises(ProtocolError) as caught:
        parser.feed(stream)
    assert caught.value.reason == str(caught.value)
    return caught.value.reason


def test_a_hit_brings_value_cas_flags_and_ttl():
    (reply,) = read([GET], b"VA 2 c3 f7 t30 O1\r\nhi\r\n")
    assert (reply.status, reply.value, reply.cas) == ("VA", b"hi", 3)
    assert (reply.client_flags, reply.ttl_s, reply.text) == (7, 30, "")


def test_what_a_reply_does_not_say_has_a_default():
    (reply,) = read([PEEK], b"HD O1\r\n")
    assert (reply.value, reply.cas, reply.client_flags, reply.ttl_s, reply.text) == (None, 0, 0, -1, "")
    assert read([GET], b"VA 0 t-1 O1\r\n\r\n")[0].ttl_s == -1


def test_numbers_reach_their_full_width():
    (reply,) = read([PEEK], b"HD c18446744073709551615 f4294967295 t4294967295 O1\r\n")
    assert (reply.cas, reply.client_flags, reply.ttl_s) == (2**64 - 1, 2**32 - 1, 2**32 - 1)


def test_flags_that_were_not_asked_for_are_passed_over():
    (reply,) = read([GET], b"VA 0 c5 W t30 O1 Z X s100 h1 l0 kkey\r\n\r\n")
    assert (reply.cas, reply.ttl_s) == (5, 30)


def test_a_value_may_look_like_replies():
    value = b"\r\nEN O1\r\nVA 3 O2\r\n"
    replies = read([GET, GET], b"VA %d O1\r\n%b\r\nEN O2\r\n" % (len(value), value))
    assert [reply.value for reply in replies] == [value, None]


def test_the_text_of_a_server_error_is_short_and_printable():
    for said, shown in (
        (b"SERVER_ERROR out of memory\r\n", "out of memory"),
        (b"SERVER_ERROR\r\n", ""),
        (b"SERVER_ERROR a\tb\xff\0c\r\n", "a?b??c"),
        (b"SERVER_ERROR " + b"x" * 2000 + b"\r\n", "x" * 200),
    ):
        (reply,) = read([STORE], said)
        assert (reply.status, reply.text) == ("SERVER_ERROR", shown)


def test_a_server_error_answers_the_command_whose_turn_it_is():
    batch = [GET, STORE, DELETE, wire.noop(), wire.version(), GET]
    error = b"SERVER_ERROR busy\r\n"
    assert [reply.status for reply in read(batch, error * 5 + b"EN O6\r\n")] == ["SERVER_ERROR"] * 5 + ["EN"]


def test_a_version_is_its_text():
    assert read([wire.version()], b"VERSION 1.6.18-beta 2\r\n")[0].text == "1.6.18-beta 2"


STREAM = (
    b"VA 4 c3 f7 t30 O8\r\n\r\nEN\r\nEN O9\r\nMN\r\nSERVER_ERROR no\r\nVERSION 1.6.18\r\nNS c0 O13\r\nVA 0 O14\r\n\r\n"
)
BATCH = [GET, GET, wire.noop(), STORE, wire.version(), STORE, GET]


def facts(replies):
    return [(r.status, r.value, r.cas, r.client_flags, r.ttl_s, r.text) for r in replies]


def test_every_split_of_a_stream_in_two_or_three_gives_the_same_replies():
    expected = facts(read(BATCH, STREAM, 8))
    assert [reply[0] for reply in expected] == ["VA", "EN", "MN", "SERVER_ERROR", "VERSION", "NS", "VA"]
    for i in range(len(STREAM) + 1):
        for j in range(i, len(STREAM) + 1):
            parser = ReplyParser(BATCH, 8)
            done = [parser.feed(piece) for piece in (STREAM[:i], STREAM[i:j], STREAM[j:])]
            assert done == [i == len(STREAM), j == len(STREAM), True]
            assert facts(parser.replies) == expected


def test_a_stream_byte_by_byte_gives_the_same_replies():
    parser = ReplyParser(BATCH, 8)
    done = feed_bytes(parser, STREAM)
    assert done == [False] * (len(STREAM) - 1) + [True]
    assert facts(parser.replies) == facts(read(BATCH, STREAM, 8))


def test_every_changed_byte_is_an_error_a_reply_or_a_wait():
    for i in range(len(STREAM)):
        for byte in range(256):
            parser = ReplyParser(BATCH, 8)
            try:
                parser.feed(STREAM[:i] + bytes([byte]) + STREAM[i + 1 :])
            except ProtocolError:
                assert len(parser.replies) < len(BATCH) or i == len(STREAM)


def test_big_values_arrive_in_pieces_of_any_size():
    value = bytes(range(256)) * 20_000
    stream = b"VA %d c1 O1\r\n%b\r\n" % (len(value), value)
    for size in (1000, 65536, 1 << 20, len(stream) - 1, len(stream)):
        parser = ReplyParser([GET], 1)
        done = [parser.feed(stream[at : at + size]) for at in range(0, len(stream), size)]
        assert done == [False] * (len(done) - 1) + [True]
        assert parser.replies[0].value == value


@pytest.mark.parametrize("length", [0, 1, 2, (1 << 20) - 3, (1 << 20) - 2, (1 << 20) - 1, 1 << 20, (1 << 21) - 2])
def test_a_value_that_ends_at_the_edge_of_a_buffer_is_whole(length):
    value = b"v" * length
    for cut in (-1, -2, -3):
        stream = b"VA %d O1\r\n%b\r\n" % (length, value)
        parser = ReplyParser([GET], 1)
        assert not parser.feed(stream[:cut])
        assert parser.feed(stream[cut:])
        assert parser.replies[0].value == value


def test_memory_follows_the_bytes_that_arrive_not_the_declared_length():
    tracemalloc.start()
    try:
        parser = ReplyParser([GET], 1)
        assert not parser.feed(b"VA %d O1\r\nx" % (1 << 30))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
        assert not parser.feed(b"x" * (3 << 20))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "stream",
    [
        b"VA 2 O1\r\nhiX\n",
        b"VA 2 O1\r\nhi\rX",
        b"VA 2 O1\r\nhi\n\n",
        b"VA 3 O1\r\nhi\r\n\r",
        b"VA -1 O1\r\n",
        b"VA 02 O1\r\nhi\r\n",
        b"VA +2 O1\r\nhi\r\n",
        b"VA  2 O1\r\nhi\r\n",
        b"VA\r\n",
        b"VA \r\n",
        b"VA O1 2\r\nhi\r\n",
        b"VA 1073741825 O1\r\n",
        b"VA 18446744073709551617 O1\r\n",
        b"VA 99999999999999999999999999 O1\r\n",
        b"HD O1 \r\n",
        b"HD  O1\r\n",
        b" HD O1\r\n",
        b"HD\tO1\r\n",
        b"HD O1\n",
        b"\r\n",
        b"\n",
        b"HDX O1\r\n",
        b"hd O1\r\n",
        b"HD O1 O1\r\n",
        b"HD c1 c1 O1\r\n",
        b"HD k k O1\r\n",
        b"HD c O1\r\n",
        b"HD c01 O1\r\n",
        b"HD c-1 O1\r\n",
        b"HD c1x O1\r\n",
        b"HD c18446744073709551616 O1\r\n",
        b"HD f4294967296 O1\r\n",
        b"HD t-2 O1\r\n",
        b"HD t4294967296 O1\r\n",
        b"HD 1 O1\r\n",
        b"HD c1\0 O1\r\n",
        b"HD k\xff O1\r\n",
        b"HD O01\r\n",
        b"HD O\r\n",
        b"HD\r\n",
        b"HD O2\r\n",
        b"EN\r\n",
        b"END\r\n",
        b"STORED\r\n",
        b"VALUE k 0 1\r\nx\r\nEND\r\n",
        b"ERROR\r\n",
        b"ERROR of some kind\r\n",
        b"CLIENT_ERROR bad command line format\r\n",
        b"EN O1\r\nEN O2\r\n",
        b"EN O1\r\n\n",
        b"x" * 2048,
        b"HD k" + b"x" * 2040 + b" O1\r\n",
    ],
)
def test_a_stream_that_is_no_answer_poisons_the_parser(stream):
    parser = ReplyParser([GET], 1)
    with pytest.raises(ProtocolError) as first:
        parser.feed(stream)
    with pytest.raises(ProtocolError) as later:
        parser.feed(b"EN O1\r\n")
    assert later.value.reason == first.value.reason
    byte_by_byte = ReplyParser([GET], 1)
    with pytest.raises(ProtocolError):
        feed_bytes(byte_by_byte, stream)
    assert facts(byte_by_byte.replies) == facts(parser.replies)


@pytest.mark.parametrize(
    ("command", "accepted"),
    [
        (GET, {"VA", "EN"}),
        (PEEK, {"VA", "HD", "EN"}),
        (wire.get(b"k", cas=5), {"VA", "HD", "EN"}),  # HD: it has that still
        (STORE, {"HD", "NS", "EX", "NF"}),
        (DELETE, {"HD", "NF", "EX"}),
        (wire.noop(), {"MN"}),
        (wire.version(), {"VERSION"}),
    ],
)
def test_a_verb_has_its_own_statuses(command, accepted):
    lines = {status: f"{status} O1\r\n".encode() for status in ("HD", "EN", "NF", "NS", "EX")}
    lines |= {"VA": b"VA 0 O1\r\n\r\n", "MN": b"MN\r\n", "VERSION": b"VERSION 1\r\n"}
    for status, line in lines.items():
        if status in accepted:
            assert read([command], line)[0].status == status
        else:
            assert status in refusal([command], line)


def test_refusals_say_what_was_wrong():
    assert "CLIENT_ERROR bad data chunk" in refusal([STORE], b"CLIENT_ERROR bad data chunk\r\n")
    assert "ERROR" in refusal([STORE], b"ERROR\r\n")
    assert "opaque" in refusal([GET], b"EN O2\r\n")
    assert "twice" in refusal([GET], b"EN O1 O1\r\n")
    assert "after the last" in refusal([GET], b"EN O1\r\nx")
    assert "2048" in refusal([GET], b"x" * 3000)
    assert "no reply" in refusal([wire.noop()], b"MN O1\r\n")
    assert "no reply" in refusal([wire.version()], b"VERSION \r\n")


def test_a_line_of_2048_bytes_is_read_and_a_longer_one_is_not():
    for n, is_read in ((2048, True), (2049, False)):
        line = b"HD O1 k" + b"x" * (n - 9) + b"\r\n"
        assert len(line) == n
        if is_read:
            assert read([PEEK], line)[0].status == "HD"
        else:
            refusal([PEEK], line)


def test_what_came_before_a_refusal_is_kept():
    parser = ReplyParser([GET, GET], 1)
    with pytest.raises(ProtocolError):
        parser.feed(b"VA 1 O1\r\nx\r\nEN O9\r\n")
    assert [reply.value for reply in parser.replies] == [b"x"]


def test_bytes_after_a_complete_batch_are_refused_when_they_come():
    parser = ReplyParser([GET], 1)
    assert parser.feed(b"EN O1\r\n")
    assert parser.feed(b"")
    with pytest.raises(ProtocolError):
        parser.feed(b"E")


def test_a_reply_can_be_made_and_does_not_change():
    reply = Reply("VA", b"secret", cas=5)
    assert facts([reply]) == [("VA", b"secret", 5, 0, -1, "")]
    assert "secret" not in repr(reply)
    with pytest.raises(AttributeError):
        reply.cas = 6
    with pytest.raises(TypeError):
        reply.__init__("HD")
    with pytest.raises(TypeError):
        Reply(None)
