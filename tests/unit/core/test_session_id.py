import copy
import os
import pickle
import re
import time
import tracemalloc

import pytest

from msm_fast._core import session_id as session_id_module
from msm_fast._core.session_id import SessionId
from msm_fast.errors import InvalidSessionId


class Text(str):
    pass


class Hostile:
    def __str__(self):
        raise AssertionError("must not be asked")

    __len__ = __eq__ = __hash__ = __repr__ = __str__


def parts(text):
    session_id = SessionId.parse(text)
    return session_id and (session_id.plain, session_id.node, session_id.route)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("foo", ("foo", None, None)),
        ("foo-n", ("foo", "n", None)),
        ("foo-n1.jvm1", ("foo", "n1", "jvm1")),
        ("foo.jvm1", ("foo", None, "jvm1")),
        ("foo.j-v-m1", ("foo", None, "j-v-m1")),
        ("foo-n.j-v-m1", ("foo", "n", "j-v-m1")),
        ("a.b-c", ("a", None, "b-c")),
        ("foo.jvm1-n", ("foo", None, "jvm1-n")),
        ("foo.-", ("foo", None, "-")),
        ("~_~-__.--", ("~_~", "__", "--")),
        ("0", ("0", None, None)),
        ("p" * 128, ("p" * 128, None, None)),
        ("p-" + "n" * 32, ("p", "n" * 32, None)),
        ("p." + "r" * 64, ("p", None, "r" * 64)),
        ("p" * 102 + "-" + "n" * 32 + "." + "r" * 64, ("p" * 102, "n" * 32, "r" * 64)),
    ],
)
def test_an_id_parses_into_its_parts(text, expected):
    assert parts(text) == expected
    assert str(SessionId.parse(text)) == text
    assert str(SessionId(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-n1",
        ".r",
        "-",
        ".",
        "-.",
        "foo-",
        "foo-.r",
        "foo.",
        "foo-n1.",
        "foo-a-b",
        "foo-a-b.r",
        "foo--n",
        "foo-n1.a.b",
        "foo.n.jvm1",
        "foo..r",
        "foo n-n1",
        " foo",
        "foo ",
        "foo-n1\n",
        "foo\n",
        "foo-~",
        "foo.~",
        "foo\0",
        "\0",
        "foo-n1\0.r",
        "foo\r\nset x 0 60 1\r\nZ",
        "foo\\015\\012set x 0 60 1",
        'foo"',
        "foo%0d%0a",
        "foo/../bar",
        "fooé",
        "\uff46oo",
        "foo-n\u0661",
        "\ud800",
        "foo\udc80-n1",
        "\N{SNOWMAN}" * 50,
        "p" * 129,
        "p-" + "n" * 33,
        "p." + "r" * 65,
        "p" * 103 + "-" + "n" * 32 + "." + "r" * 64,
        "p" * 201,
    ],
)
def test_text_outside_the_grammar_is_no_id(text):
    assert SessionId.parse(text) is None
    with pytest.raises(InvalidSessionId):
        SessionId(text)


@pytest.mark.parametrize("length", [10_000_000, 201])
@pytest.mark.parametrize("letter", ["a", "é", "\N{SNOWMAN}", "\ud800"])
def test_long_text_is_no_id(letter, length):
    assert SessionId.parse(letter * length) is None


@pytest.mark.parametrize("garbage", ["a" * 10_000_000, "\N{SNOWMAN}" * 10_000_000, b"a" * 10_000_000])
def test_text_over_the_limit_costs_neither_time_nor_memory_for_its_length(garbage):
    def cost_s(text):
        start = time.perf_counter()
        for _ in range(100):
            SessionId.parse(text)
        return time.perf_counter() - start

    def best_s(text):
        return min(cost_s(text) for _ in range(5))

    # Fifty thousand times as long.
    assert best_s(garbage) < 50 * best_s(garbage[:201])
    tracemalloc.start()
    try:
        SessionId.parse(garbage)
        assert tracemalloc.get_traced_memory()[1] < 1000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("thing", [None, b"foo", bytearray(b"foo"), 5, 1.5, ["foo"], Text("foo"), object(), Hostile()])
def test_what_is_no_str_is_no_id(thing):
    assert SessionId.parse(thing) is None


def test_an_id_of_this_library_parses_back_to_itself():
    session_id = SessionId.parse("foo-n1.w1")
    assert SessionId.parse(session_id) is None
    assert SessionId.parse(str(session_id)) == session_id


def test_every_character_stands_only_where_the_grammar_has_it():
    for code in range(0x250):
        letter = chr(code)
        assert (parts(f"p{letter}") is not None) == bool(re.fullmatch("[A-Za-z0-9_~]", letter, re.ASCII))
        assert (parts(f"p-n{letter}") is not None) == bool(re.fullmatch("[A-Za-z0-9_]", letter, re.ASCII))
        assert (parts(f"p.r{letter}") is not None) == bool(re.fullmatch("[A-Za-z0-9_-]", letter, re.ASCII))


def test_a_generated_id_is_32_hex_digits_and_no_two_are_alike():
    session_id = SessionId.generate()
    assert re.fullmatch("[0-9a-f]{32}", str(session_id))
    assert (session_id.node, session_id.route) == (None, None)
    assert str(SessionId.generate("n1", "w-1")).endswith("-n1.w-1")
    assert len({SessionId.generate().plain for _ in range(1000)}) == 1000


def test_each_id_asks_the_system_for_its_own_128_bits_and_keeps_none(monkeypatch):
    asked = []

    def urandom(n_bytes):
        asked.append(n_bytes)
        return bytes([len(asked)]) * n_bytes

    monkeypatch.setattr(session_id_module, "urandom", urandom)
    assert [str(SessionId.generate()) for _ in range(3)] == ["01" * 16, "02" * 16, "03" * 16]
    assert asked == [16, 16, 16]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_children_generate_ids_of_their_own():
    SessionId.generate()
    pipes = []
    for _ in range(4):
        readable, writable = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writable, "".join(SessionId.generate().plain for _ in range(100)).encode())
            os._exit(0)
        os.close(writable)
        pipes.append((child, readable))
    text = "".join(SessionId.generate().plain for _ in range(100))
    for child, readable in pipes:
        text += os.read(readable, 10_000).decode()
        os.close(readable)
        assert os.waitpid(child, 0)[1] == 0
    assert len({text[i : i + 32] for i in range(0, len(text), 32)}) == 500


@pytest.mark.parametrize(
    ("text", "node", "expected"),
    [
        ("foo", "n", "foo-n"),
        ("foo.jvm1", "n", "foo-n.jvm1"),
        ("foo.j-v-m1", "n", "foo-n.j-v-m1"),
        ("foo-n", "m", "foo-m"),
        ("foo-n.jvm1", "m", "foo-m.jvm1"),
        ("foo-n.jvm1", None, "foo.jvm1"),
        ("foo", None, "foo"),
    ],
)
def test_with_node_exchanges_the_node_only(text, node, expected):
    assert str(SessionId(text).with_node(node)) == expected
    assert SessionId(text).with_node(node) == SessionId(expected)


@pytest.mark.parametrize(
    ("text", "route", "expected"),
    [
        ("foo", "tc2", "foo.tc2"),
        ("foo-n1.jvm1", "tc2", "foo-n1.tc2"),
        ("foo.j-v-m1", "t-c-2", "foo.t-c-2"),
        ("foo-n1.jvm1", None, "foo-n1"),
    ],
)
def test_with_route_exchanges_the_route_only(text, route, expected):
    assert str(SessionId(text).with_route(route)) == expected


@pytest.mark.parametrize(
    "node",
    [
        "",
        "n-1",
        "n.1",
        "n1.r",
        "n 1",
        "n\r\n",
        "ñ",
        "\ud800",
        "~",
        "n" * 33,
        pytest.param("n" * 10**7, id="long"),
        b"n1",
        1,
        Text("n1"),
    ],
)
def test_a_bad_node_is_refused_and_not_shown_at_length(node):
    for call in (SessionId("foo-n1").with_node, SessionId("foo.r").with_node, SessionId.generate):
        with pytest.raises(InvalidSessionId) as caught:
            call(node)
        assert "foo" not in str(caught.value)
        assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "route",
    ["", "r.1", "r 1", "r\n", "é", "~", "r" * 65, pytest.param("r" * 10**7, id="long"), b"r", 1, Text("r")],
)
def test_a_bad_route_is_refused(route):
    for call in (SessionId("foo-n1.r").with_route, lambda route: SessionId.generate(None, route)):
        with pytest.raises(InvalidSessionId):
            call(route)


def test_an_exchange_that_makes_the_id_too_long_is_refused():
    session_id = SessionId("p" * 128 + "." + "r" * 64)
    assert len(str(session_id.with_node("n" * 6))) == 200
    with pytest.raises(InvalidSessionId):
        session_id.with_node("n" * 7)


def test_the_repr_does_not_show_the_id():
    assert repr(SessionId("secret-n1.w1")) == "<SessionId …-n1.w1>"
    assert repr(SessionId("secret.w1")) == "<SessionId ….w1>"
    assert repr(SessionId("secret")) == "<SessionId …>"


@pytest.mark.parametrize("ending", ["", "-n1", ".w1", "-n1.w1"])
def test_an_issued_id_is_told_from_others_by_its_form(ending):
    issued = str(SessionId.generate()) + ending
    assert SessionId.parse_issued(issued) == SessionId.parse(issued)
    plain = "0123456789abcdef" * 2
    for other in ("", plain[1:], plain + "0", plain.upper(), "shop_" + plain, plain[:-1] + "g", plain[:-1] + "~"):
        assert SessionId.parse_issued(other + ending) is None
    assert SessionId.parse_issued(issued.encode()) is None


def test_equal_ids_are_equal_keys():
    one, same, other = SessionId("foo-n1"), SessionId.parse("foo-n1"), SessionId("foo-n2")
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one != "foo-n1"
    assert {one: 1}[same] == 1


def test_an_id_does_not_change():
    session_id = SessionId("foo-n1")
    for name in ("plain", "node", "route", "other"):
        with pytest.raises(AttributeError):
            setattr(session_id, name, "x")
    with pytest.raises(TypeError):
        session_id.__init__("bar")
    assert session_id == SessionId("foo-n1")


def test_an_id_can_be_copied_and_pickled():
    session_id = SessionId("foo-n1.r")
    assert copy.deepcopy(session_id) == session_id
    assert pickle.loads(pickle.dumps(session_id)) == session_id


def test_an_instance_without_text_is_an_error_not_a_crash():
    blank = SessionId.__new__(SessionId)
    for use in (str, repr, lambda blank: blank.plain, lambda blank: blank.with_node("n")):
        with pytest.raises(TypeError):
            use(blank)
    assert blank != SessionId("foo")
    assert (blank.node, blank.route) == (None, None)
