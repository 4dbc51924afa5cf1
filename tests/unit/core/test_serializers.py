import json
import pickle
from collections import OrderedDict

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import dumps, register_type
from msm_fast._core.serializers import resolve_serializers
from msm_fast.errors import ConfigurationError
from tests.reference.record import encode_frame, split_frames


class Reversing:
    name = "reversing"

    def dumps(self, value):
        if type(value) is not str:
            raise TypeError("only text")
        return value[::-1].encode()

    def loads(self, data):
        return data.decode()[::-1]


def encode(attributes):
    body, failures = attributes.encode()
    assert failures == ()
    return body


def tags(body):
    return [tag for _, tag, _ in split_frames(body)]


@pytest.mark.parametrize(
    ("spec", "names"),
    [
        ("native", ["native"]),
        ("json", ["json"]),
        ("pickle", ["pickle"]),
        (("native", "pickle"), ["native", "pickle"]),
        (["json"], ["json"]),
        (Reversing(), ["reversing"]),
        ((Reversing(), "native"), ["reversing", "native"]),
    ],
)
def test_a_spec_is_resolved_to_serializers(spec, names):
    chain = resolve_serializers(spec)
    assert [serializer.name for serializer in chain] == names
    assert resolve_serializers(chain) is chain
    assert [serializer.name for serializer in resolve_serializers(tuple(chain))] == names
    assert all(serializer.loads(serializer.dumps("text")) == "text" for serializer in chain)


def named(name):
    serializer = Reversing()
    serializer.name = name
    return serializer


@pytest.mark.parametrize(
    "spec",
    [
        "yaml",
        "",
        (),
        None,
        3,
        object(),
        json,
        pickle,
        Reversing.dumps,
        ("native", "native"),
        ("native", ("json",)),
        (named("x"), named("x")),
        named(""),
        named("native"),
        named(b"x"),
        named("ü" * 128),
        named("a\nb"),
    ],
    ids=repr,
)
def test_anything_else_is_refused(spec):
    with pytest.raises(ConfigurationError, match="serializer"):
        resolve_serializers(spec)
    with pytest.raises(ConfigurationError):
        AttributeMap({}, serializer=spec)
    with pytest.raises(ConfigurationError):
        AttributeMap.decode(b"", spec)


def test_each_frame_carries_the_tag_of_its_serializer():
    assert encode(AttributeMap({"a": [1]})) == encode_frame("a", 0, dumps([1]))
    assert encode(AttributeMap({"a": [1, "ü"]}, "json")) == encode_frame("a", 1, '[1,"ü"]'.encode())
    assert encode(AttributeMap({"a": 1}, "pickle")) == encode_frame("a", 2, pickle.dumps(1, 5))
    assert encode(AttributeMap({"a": "xy"}, Reversing())) == encode_frame("a", 3, b"\x09reversing" + b"yx")


LONE_SURROGATES = {"q": "\ud800", "\udfff": ["ü", "\ude00\ud83d"]}


def test_json_carries_lone_surrogates_as_visitors_can_send_them():
    sent = json.loads('{"q": "\\ud800", "\\udfff": ["ü", "\\ude00\\ud83d"]}')
    assert sent == LONE_SURROGATES
    body = encode(AttributeMap({"form": sent, "next": "ü"}, "json"))
    assert body == (
        encode_frame("form", 1, b'{"q":"\\ud800","\\udfff":["\\u00fc","\\ude00\\ud83d"]}')
        + encode_frame("next", 1, '"ü"'.encode())
    )
    back = AttributeMap.decode(body, "json")
    assert back == {"form": sent, "next": "ü"}
    assert not back.is_changed
    back["form"]["q"] += "!"
    assert back.changed_names() == ({"form"}, set())


def test_native_refuses_lone_surrogates_and_a_chain_leaves_them_to_json():
    body, failures = AttributeMap({"form": LONE_SURROGATES, "next": 1}).encode()
    assert tags(body) == [0]
    assert [(failure.name, failure.type_name) for failure in failures] == [("form", "builtins.dict")]
    assert tags(encode(AttributeMap({"form": LONE_SURROGATES, "next": 1}, ("native", "json")))) == [1, 0]


def test_the_first_of_a_chain_that_can_encode_a_value_does():
    ordered = OrderedDict(a=[1])
    attributes = AttributeMap({"plain": [1], "own": ordered}, ("native", "pickle"))
    body = encode(attributes)
    assert tags(body) == [0, 2]
    back = AttributeMap.decode(body, ("native", "pickle"))
    assert back == {"plain": [1], "own": ordered}
    assert type(back["own"]) is OrderedDict
    assert not back.is_changed
    back["own"]["a"].append(2)
    assert back.changed_names() == ({"own"}, set())


def test_a_chain_that_cannot_encode_a_value_tells_the_last_reason_and_leaves_nothing():
    attributes = AttributeMap({"a": "x", "b": 3, "c": "y"}, (Reversing(), "json"))
    attributes["b"] = {1, 2}
    body, failures = attributes.encode()
    assert [(failure.name, failure.type_name) for failure in failures] == [("b", "builtins.set")]
    assert "JSON" in str(failures[0].cause)
    assert AttributeMap.decode(body, (Reversing(), "json")) == {"a": "x", "c": "y"}


class Account:
    number = ""


def encode_account(account):
    raise ValueError("an account has a number")


register_type(Account, "test.serializers.Account", encode_account, Account)


@pytest.mark.parametrize("chain", [("native", "json"), ("json", "native")])
@pytest.mark.parametrize(
    ("value", "cause"), [(Account(), "an account has a number"), ([object()], "builtins.object is not a type")]
)
def test_what_fails_of_a_type_that_is_registered_is_not_told_to_be_a_type_that_json_does_not_know(chain, value, cause):
    _, failures = AttributeMap({"of": value}, chain).encode()
    assert cause in str(failures[0].cause)


def test_every_reader_reads_native_and_json():
    body = encode_frame("a", 0, dumps((1,))) + encode_frame("b", 1, b'{"x":[2]}')
    for serializer in ("native", "json", "pickle", Reversing()):
        assert AttributeMap.decode(body, serializer) == {"a": (1,), "b": {"x": [2]}}


@pytest.mark.parametrize(
    "frame",
    [
        encode_frame("a", 2, pickle.dumps([1])),
        encode_frame("a", 3, b"\x09reversing" + b"yx"),
        encode_frame("a", 3, b""),
        encode_frame("a", 3, b"\xffshort"),
        encode_frame("a", 4, b"\xc0"),
        encode_frame("a", 255, b"\xc0"),
        encode_frame("a", 1, b"{"),
        encode_frame("a", 1, b"\xff\xfe\xfd"),
        encode_frame("a", 1, b"[" * 100_000),
    ],
    ids=lambda frame: repr(frame[:20]),
)
def test_a_frame_that_is_not_configured_or_broken_fails_alone_and_is_kept(frame):
    body = frame + encode_frame("b", 0, dumps(1))
    attributes = AttributeMap.decode(body)
    assert attributes == {"a": None, "b": 1}
    assert [failure.name for failure in attributes.failures] == ["a"]
    assert encode(attributes) is body


def test_pickle_is_not_read_unless_configured(monkeypatch):
    monkeypatch.setattr(pickle, "loads", lambda data: pytest.fail("unpickled"))
    attributes = AttributeMap.decode(encode_frame("a", 2, pickle.dumps([1])), ("native", "json", Reversing()))
    assert attributes["a"] is None


def test_a_value_only_read_from_another_serializers_frame_is_unchanged():
    body = encode_frame("a", 1, b'{ "x": [ 2 ] }')
    for serializer in ("native", ("native", "json"), "json"):
        attributes = AttributeMap.decode(body, serializer)
        attributes["a"]
        if serializer != "json":
            assert encode(attributes) is body
        attributes["a"]["x"].append(3)
        assert attributes.changed_names() == ({"a"}, set())
        assert AttributeMap.decode(encode(attributes)) == {"a": {"x": [2, 3]}}


def test_a_changed_value_moves_to_the_chains_serializer():
    attributes = AttributeMap.decode(encode_frame("a", 1, b"[1]") + encode_frame("b", 1, b"[2]"))
    attributes["a"].append(2)
    assert tags(encode(attributes)) == [0, 1]
    attributes.mark_saved(encode(attributes))
    assert not attributes.is_changed


def test_a_change_that_json_cannot_see_is_found_by_the_native_codec():
    attributes = AttributeMap.decode(encode_frame("a", 1, b"[[1,2]]"))
    attributes["a"][0] = (1, 2)
    assert attributes.changed_names() == ({"a"}, set())


DEEP = b"[" * 100 + b"]" * 100


@pytest.mark.parametrize(
    ("serializer", "tag", "stored"),
    [("native", 1, DEEP), ("native", 1, b'["\\ud800"]'), (("native",), 1, DEEP), ("json", 0, dumps([{1, 2}]))],
    ids=["deep", "lone surrogate", "chain", "set"],
)
def test_what_another_serializer_stored_can_be_stored_again_though_the_own_cannot_write_it(serializer, tag, stored):
    """Old sessions outlive a change of the setting: to read one is not to fail over it when it is saved."""
    body = encode_frame("a", tag, stored) + encode_frame("b", 0, dumps(1))
    attributes = AttributeMap.decode(body, serializer)
    assert attributes["a"]
    assert encode(attributes) is body
    assert attributes.encode(nulls={})[0] is body
    assert attributes.changed_names() == (set(), set())

    attributes["b"] = 2
    changed = encode(attributes)
    assert tags(changed)[0] == tag
    attributes.mark_saved(changed)

    attributes["a"].append("more")
    assert attributes.changed_names() == ({"a"}, set())
    attributes.rebase(encode_frame("c", 0, dumps(3)))
    rebased = encode(attributes)
    assert dict(zip("ca", tags(rebased), strict=True)) == {"c": 0, "a": tag}
    assert AttributeMap.decode(rebased, serializer)["a"][-1] == "more"


def test_what_is_set_anew_is_for_the_own_serializer_to_write():
    attributes = AttributeMap.decode(encode_frame("a", 0, dumps([{1, 2}])), "json")
    attributes["a"] = [{1, 2}]
    assert [failure.name for failure in attributes.encode()[1]] == ["a"]


def test_a_serializer_that_gives_no_bytes_has_failed():
    broken = named("broken")
    broken.dumps = lambda value: value
    body, failures = AttributeMap({"a": "text"}, broken).encode()
    assert body == b""
    assert [failure.name for failure in failures] == ["a"]


class Deep:
    """Gives tuples nested deeper than the machine's stack could follow."""

    name = "deep"

    def dumps(self, value):
        return b""

    def loads(self, data):
        value = ()
        for _ in range(300_000):
            value = (value,)
        return value


def test_a_value_of_another_serializer_may_be_nested_as_deep_as_that_allows():
    body = encode(AttributeMap({"a": 1}, serializer=Deep()))
    attributes = AttributeMap.decode(body, serializer=Deep())
    assert type(attributes["a"]) is tuple
    assert encode(attributes) is body
    attributes["a"] = attributes["a"]
    assert encode(attributes) is body
