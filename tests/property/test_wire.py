import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from msm_fast._core import wire
from msm_fast._core.replies import ProtocolError, ReplyParser
from tests.reference import wire as reference

U32, U64 = st.integers(0, reference.U32), st.integers(0, reference.U64)
COMMANDS = {
    "mg": wire.get(b"key", value=False),
    "mg v": wire.get(b"key"),
    "ms": wire.store(b"key", b"value", 1, 0),
    "md": wire.delete(b"key"),
    "mn": wire.noop(),
    "version": wire.version(),
}
VALUES = st.one_of(st.binary(max_size=30), st.just(b"HD c1 O1\r\n"), st.just(b"\r\n"), st.just(b"x" * 3000))


@st.composite
def answers(draw, verb, opaque):
    """What a server may say to verb."""
    if draw(st.integers(0, 9)) == 0:
        return b"SERVER_ERROR " + draw(st.binary(max_size=20)).replace(b"\n", b"") + b"\r\n"
    if verb == "mn":
        return b"MN\r\n"
    if verb == "version":
        return b"VERSION 1.6.18\r\n"
    status = draw(st.sampled_from(sorted(reference.ANSWERS[verb]))).encode()
    flags = [b"O%d" % opaque]
    if draw(st.booleans()):
        flags += [
            b"c%d" % draw(U64),
            b"f%d" % draw(U32),
            draw(st.sampled_from([b"t-1", b"t0", b"t1800", b"W", b"s12"])),
        ]
    line = b" ".join([status, *draw(st.permutations(flags))])
    if status != b"VA":
        return line + b"\r\n"
    value = draw(VALUES)
    return line.replace(b"VA", b"VA %d" % len(value), 1) + b"\r\n" + value + b"\r\n"


@st.composite
def exchanges(draw):
    """(verbs, first_opaque, the stream of a server that answers them)."""
    verbs = draw(st.lists(st.sampled_from(sorted(COMMANDS)), min_size=1, max_size=5))
    first_opaque = draw(st.one_of(U64, st.just(reference.U64)))
    replies = [draw(answers(verb, (first_opaque + i) & reference.U64)) for i, verb in enumerate(verbs)]
    return verbs, first_opaque, b"".join(replies)


def read(verbs, first_opaque, pieces):
    """What the parser makes of a stream in pieces, in the words of the oracle."""
    parser = ReplyParser([COMMANDS[verb] for verb in verbs], first_opaque)
    outcome = "incomplete"
    for piece in pieces:
        try:
            if parser.feed(piece):
                outcome = "complete"
        except ProtocolError:
            outcome = "refused"
            break
    replies = [(r.status, r.value, r.cas, r.client_flags, r.ttl_s, r.text) for r in parser.replies]
    return replies, outcome


def cut(stream, places):
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(st.integers(0, 5000), max_size=6)


@given(exchanges(), CUTS)
def test_replies_are_those_of_the_oracle_however_the_stream_is_cut(exchange, cuts):
    verbs, first_opaque, stream = exchange
    expected = reference.parse(verbs, first_opaque, stream)
    assert expected[1] == "complete"
    assert read(verbs, first_opaque, cut(stream, cuts)) == expected
    assert read(verbs, first_opaque, [stream[i : i + 1] for i in range(len(stream))]) == expected


@given(exchanges(), CUTS, st.integers(0, 5000))
def test_a_stream_that_breaks_off_is_not_complete(exchange, cuts, length):
    verbs, first_opaque, stream = exchange
    stream = stream[: length % len(stream)]
    replies, outcome = reference.parse(verbs, first_opaque, stream)
    assert outcome == "incomplete"
    assert read(verbs, first_opaque, cut(stream, cuts)) == (replies, outcome)


@given(exchanges(), CUTS, st.integers(0, 5000), st.integers(0, 3), st.binary(max_size=3))
def test_a_damaged_stream_is_read_as_the_oracle_reads_it(exchange, cuts, at, gone, put):
    verbs, first_opaque, stream = exchange
    at %= len(stream) + 1
    stream = stream[:at] + put + stream[at + gone :]
    assert read(verbs, first_opaque, cut(stream, cuts)) == reference.parse(verbs, first_opaque, stream)


TOKENS = st.sampled_from(
    b"VA|HD|EN|NF|MN|NS|EX|VERSION|SERVER_ERROR|CLIENT_ERROR|ERROR| |  |\r\n|\n|\r|c1|c01|c"
    b"|f4294967296|t-1|t-2|t5|O7|O8|O07|W|k key|0|1|12|ab|\0|\xff|1073741825|18446744073709551616|-|+1".split(b"|")
)


@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=3), st.lists(TOKENS, max_size=14).map(b"".join), CUTS)
def test_any_soup_of_tokens_is_read_as_the_oracle_reads_it(verbs, stream, cuts):
    assert read(verbs, 7, [b"", *cut(stream, cuts)]) == reference.parse(verbs, 7, stream)


@given(st.lists(st.sampled_from(sorted(COMMANDS)), max_size=3), U64, st.binary(max_size=60))
def test_any_bytes_are_read_as_the_oracle_reads_them(verbs, first_opaque, stream):
    assert read(verbs, first_opaque, [stream]) == reference.parse(verbs, first_opaque, stream)


@given(
    st.binary(min_size=1, max_size=250).map(lambda key: bytes(0x21 + byte % 94 for byte in key)),
    st.binary(max_size=50),
    U32,
    U64,
    st.one_of(st.just(0), st.integers(1, 2592000), st.integers(1_000_000_001, 2**31 - 1)),
    U64,
)
def test_a_batch_is_the_bytes_of_its_commands(key, value, client_flags, cas, exptime, first_opaque):
    batch = [
        wire.get(key, exptime),
        wire.store(key, value, client_flags, exptime, cas),
        wire.noop(),
        wire.store(key, value, client_flags, exptime, add=True),
        wire.delete(key, cas),
        wire.version(),
        wire.get(key, value=False),
        wire.get(key, exptime, cas=cas),
    ]
    opaques = [(first_opaque + i) & reference.U64 for i in range(len(batch))]
    stored = b"ms %b %d c F%d T%d" % (key, len(value), client_flags, exptime)
    assert wire.encode(batch, first_opaque) == b"".join(
        [
            b"mg %b v c f t T%d O%d\r\n" % (key, exptime, opaques[0]),
            b"%b C%d O%d\r\n%b\r\n" % (stored, cas, opaques[1], value),
            b"mn\r\n",
            b"%b ME O%d\r\n%b\r\n" % (stored, opaques[3], value),
            b"md %b C%d O%d\r\n" % (key, cas, opaques[4]),
            b"version\r\n",
            b"mg %b c f t O%d\r\n" % (key, opaques[6]),
            b"mg %b v c f t T%d C%d O%d\r\n" % (key, exptime, cas, opaques[7]),
        ]
    )


@given(st.floats(allow_nan=False, min_value=0, max_value=1e12), st.floats(1.1e9, 2e9))
def test_every_exptime_is_one_that_a_command_takes(ttl_s, now_s):
    seconds = wire.exptime(ttl_s, now_s)
    wire.get(b"key", seconds)
    if seconds == 0:
        assert ttl_s == 0
    elif seconds <= 2592000:
        assert seconds == math.ceil(ttl_s)
    elif seconds < 2**31 - 1:
        assert seconds == math.ceil(now_s + ttl_s)
