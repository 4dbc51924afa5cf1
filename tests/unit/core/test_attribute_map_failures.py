"""Values of a map that cannot be encoded, and frames that cannot be decoded: the rest of the session is unharmed."""

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast.errors import CorruptRecord
from tests.reference.record import encode_frame
from tests.unit.core.attribute_maps import Tracked, encode, frames, saved

# Values that cannot be encoded


def test_a_value_that_cannot_be_encoded_is_trapped_and_the_rest_is_encoded():
    broken = object()
    attributes = AttributeMap({"a": 1, "broken": [b"x" * 1000, broken], "b": 2})
    body, failures = attributes.encode()
    assert AttributeMap.decode(body) == {"a": 1, "b": 2}
    assert [(failure.name, failure.type_name) for failure in failures] == [("broken", "builtins.list")]
    assert isinstance(failures[0].cause, TypeError)
    assert attributes["broken"][1] is broken


def test_a_stored_value_that_became_unencodable_is_left_out():
    attributes = saved(a=1, b=[1], c=3)
    attributes["b"].append(object())
    body, failures = attributes.encode()
    assert [failure.name for failure in failures] == ["b"]
    assert AttributeMap.decode(body) == {"a": 1, "c": 3}
    assert attributes.is_changed
    assert attributes.changed_names() == ({"b"}, set())
    attributes["b"].pop()
    assert encode(attributes) == encode(AttributeMap({"a": 1, "b": [1], "c": 3}))


def test_a_trapped_value_outlives_a_save_and_is_stored_once_it_can_be():
    attributes = AttributeMap({"a": 1, "b": [object()], "c": 2})
    body, _ = attributes.encode()
    attributes.mark_saved(body)
    assert not attributes.is_changed
    assert attributes.changed_names() == (set(), set())
    assert [failure.name for failure in attributes.encode()[1]] == ["b"]
    attributes["b"][0] = 5
    assert attributes.is_changed
    assert AttributeMap.decode(encode(attributes)) == {"a": 1, "b": [5], "c": 2}


def test_a_trapped_value_outlives_a_rebase():
    attributes = saved(a=[1])
    attributes["a"].append(object())
    attributes["b"] = object()
    attributes.rebase(frames(("a", [9]), ("c", 1)))
    assert len(attributes["a"]) == 2
    assert set(attributes) == {"a", "b", "c"}


def test_a_cycle_is_trapped():
    attributes = AttributeMap({"a": 1})
    attributes["cycle"] = [attributes, []]
    attributes["loop"] = []
    attributes["loop"].append(attributes["loop"])
    body, failures = attributes.encode()
    assert [failure.name for failure in failures] == ["cycle", "loop"]
    assert AttributeMap.decode(body) == {"a": 1}


def test_an_exception_that_is_no_error_is_not_trapped(monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    attributes = AttributeMap({"a": Tracked(1)})
    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(interrupt))
    with pytest.raises(KeyboardInterrupt):
        attributes.encode()


# Values that cannot be decoded

BROKEN = encode_frame("broken", 0, b"\xc1")


def test_a_value_that_cannot_be_decoded_is_isolated_and_its_frame_kept():
    attributes = AttributeMap.decode(frames(("a", 1)) + BROKEN + frames(("b", [2])))
    assert attributes.failures == ()
    assert dict(attributes.items()) == {"a": 1, "broken": None, "b": [2]}
    assert [failure.name for failure in attributes.failures] == ["broken"]
    assert isinstance(attributes.failures[0].cause, CorruptRecord)
    assert not attributes.is_changed
    attributes["a"] = 3
    assert encode(attributes) == frames(("a", 3)) + BROKEN + frames(("b", [2]))


def test_a_failure_is_reported_once():
    attributes = AttributeMap.decode(BROKEN)
    assert [attributes["broken"] for _ in range(3)] == [None] * 3
    assert len(attributes.failures) == 1


def test_a_broken_value_can_be_replaced_and_deleted():
    for act in (lambda attributes: attributes.update(broken=1), lambda attributes: attributes.pop("broken")):
        attributes = AttributeMap.decode(BROKEN)
        attributes["broken"]
        act(attributes)
        assert attributes.is_changed
        assert b"\xc1" not in encode(attributes)


def test_a_broken_value_survives_saving_and_rebasing():
    attributes = AttributeMap.decode(BROKEN)
    attributes["broken"]
    attributes["a"] = 1
    attributes.mark_saved(encode(attributes))
    assert encode(attributes) == BROKEN + frames(("a", 1))
    attributes.rebase(frames(("broken", 7)))
    assert attributes == {"broken": 7}
    attributes.rebase(b"")
    assert attributes == {}


def test_a_name_that_stands_twice_is_corrupt_when_names_are_indexed():
    attributes = AttributeMap.decode(frames(("a", 1), ("b", 2), ("a", 3)))
    assert attributes["b"] == 2
    with pytest.raises(CorruptRecord, match="twice"):
        list(attributes)
    assert "twice" in repr(attributes)


def test_a_name_that_is_no_utf8_is_corrupt_when_names_are_indexed():
    attributes = AttributeMap.decode(b"\x01\0\0\x01\0\0\0\xff\xc0")
    assert "a" not in attributes
    with pytest.raises(CorruptRecord, match="UTF-8"):
        list(attributes)


def test_every_truncation_of_the_frames_is_corrupt_or_fewer_frames():
    body = frames(("a", [1]), ("b", "x"), ("c", None))
    whole = {len(frames(*pairs)): len(pairs) for pairs in ([], [("a", [1])], [("a", [1]), ("b", "x")])}
    for n_bytes in range(len(body)):
        if n_bytes in whole:
            assert len(AttributeMap.decode(body[:n_bytes])) == whole[n_bytes]
        else:
            with pytest.raises(CorruptRecord):
                AttributeMap.decode(body[:n_bytes])
