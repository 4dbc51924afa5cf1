"""What an attribute map leaves out of its frames, and what it writes as null."""

import re

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import register_type
from msm_fast._core.record import value_sizes
from tests.reference.record import encode_frame
from tests.unit.core.attribute_maps import frames


class Unknown:
    """A type that no serializer knows."""


UNKNOWN = f"{__name__}.Unknown"


class Refused:
    """A type that is registered, and whose values are refused while it is."""

    is_refused = True
    n_encoded = 0

    @classmethod
    def encode(cls, value):
        cls.n_encoded += 1
        if cls.is_refused:
            raise RuntimeError("refused")
        return 5


register_type(Refused, "test.Refused", Refused.encode, lambda content: Refused())
REFUSED = f"{__name__}.Refused"


@pytest.fixture(autouse=True)
def _refused(monkeypatch):
    monkeypatch.setattr(Refused, "is_refused", True)
    monkeypatch.setattr(Refused, "n_encoded", 0)


def names_of(failures):
    return [failure.name for failure in failures]


keep = re.compile("(a|b)").fullmatch


# What is written as null


def test_with_nulls_what_cannot_be_encoded_is_written_as_null_and_reported():
    attributes = AttributeMap({"a": 1, "handle": Unknown(), "b": 2})
    body, failures = attributes.encode(nulls={})
    assert body == frames(("a", 1), ("handle", None), ("b", 2))
    assert [(failure.name, failure.type_name) for failure in failures] == [("handle", UNKNOWN)]
    assert isinstance(attributes["handle"], Unknown), "it keeps its value"


def test_a_stored_value_that_became_unencodable_is_written_as_null_in_its_place():
    attributes = AttributeMap.decode(frames(("a", 1), ("b", [1]), ("c", 3)))
    attributes["b"].append(object())
    body, failures = attributes.encode(nulls={})
    assert body == frames(("a", 1), ("b", None), ("c", 3))
    assert names_of(failures) == ["b"]


def test_a_value_whose_name_and_type_are_among_the_nulls_is_not_even_tried():
    attributes = AttributeMap.decode(frames(("a", 1), ("b", 2)))
    attributes["a"], attributes["new"] = Refused(), Refused()
    nulls = {"a": frozenset({REFUSED}), "new": frozenset({"other", REFUSED})}
    assert attributes.encode(nulls=nulls) == (frames(("a", None), ("b", 2), ("new", None)), ())
    assert Refused.n_encoded == 0


def test_another_type_under_that_name_and_that_type_under_another_name_are_tried():
    attributes = AttributeMap({"a": 1, "b": Refused()})
    body, failures = attributes.encode(nulls={"a": frozenset({REFUSED})})
    assert body == frames(("a", 1), ("b", None))
    assert names_of(failures) == ["b"]


def test_what_is_null_already_and_would_be_again_is_unchanged():
    attributes = AttributeMap.decode(frames(("a", None), ("b", None), ("n", None)))
    base, _ = attributes.encode()
    attributes["a"], attributes["b"], attributes["n"] = Refused(), Unknown(), 7
    for _ in range(2):
        body, failures = attributes.encode(nulls={"a": frozenset({REFUSED}), "n": frozenset({"builtins.int"})})
        assert body is base
        assert names_of(failures) == ["b"]


def test_what_was_written_as_null_is_written_once_it_may_be(monkeypatch):
    attributes = AttributeMap({"a": Refused(), "n": 7})
    nulls = {"a": frozenset({REFUSED}), "n": frozenset({"builtins.int"})}
    body, _ = attributes.encode(nulls=nulls)
    attributes.mark_saved(body)
    assert attributes.encode(nulls=nulls)[0] is body
    monkeypatch.setattr(Refused, "is_refused", False)
    again, failures = attributes.encode()
    assert failures == ()
    assert type(AttributeMap.decode(again)["a"]) is Refused
    assert AttributeMap.decode(again)["n"] == 7


@pytest.mark.parametrize("how", ["unencodable", "among the nulls", "null afterwards", "set again"])
def test_what_was_stored_as_null_is_no_change_to_what_another_writer_stores(how):
    value, nulls = (1, {"a": frozenset({"builtins.int"})}) if how == "among the nulls" else (Unknown(), {})
    attributes = AttributeMap({"a": "large" if how == "null afterwards" else value, "b": 1})
    body, _ = attributes.encode(nulls=nulls)
    if how == "null afterwards":
        body = attributes.null_out(body, ["a"])
    attributes.mark_saved(body)
    if how == "set again":
        attributes["a"] = value
        assert attributes.encode(nulls=nulls)[0] is body
    attributes.rebase(frames(("a", None), ("b", 2)))
    assert attributes["a"] is not None, "the others have not touched it"
    attributes.rebase(frames(("a", "theirs"), ("b", 2)))
    assert dict(attributes) == {"a": "theirs", "b": 2}


def test_what_is_set_in_place_of_what_was_stored_as_null_is_a_change():
    attributes = AttributeMap({"a": Unknown()})
    attributes.mark_saved(attributes.encode(nulls={})[0])
    attributes["a"] = "mine"
    attributes.rebase(frames(("a", "theirs")))
    assert attributes["a"] == "mine"


def test_null_in_a_map_of_another_serializer_is_read_as_none():
    attributes = AttributeMap({"a": 1, "b": object()}, serializer="json")
    body, _ = attributes.encode(nulls={})
    back = AttributeMap.decode(body, serializer="json")
    assert dict(back.items()) == {"a": 1, "b": None}
    assert back.encode()[0] is body


def test_a_failure_says_whether_values_of_that_type_can_be_stored_as_a_rule():
    odd = type("Odd", (type,), {"__hash__": None})("Odd", (), {})
    attributes = AttributeMap(
        {"text": "\ud800", "list": [object()], "registered": Refused(), "object": object(), "odd": odd(), "type": int}
    )
    _, failures = attributes.encode()
    assert {failure.name: failure.is_type_known for failure in failures} == {
        "text": True, "list": True, "registered": True, "object": False, "odd": False, "type": False
    }  # fmt: skip


# What is made null afterwards


def test_values_can_be_made_null_in_what_was_encoded():
    attributes = AttributeMap.decode(frames(("a", 1), ("b", "x" * 50)))
    attributes["c"], attributes["d"] = "y" * 50, 4
    body, _ = attributes.encode()
    assert attributes.null_out(body, ["c", "b"]) == frames(("a", 1), ("b", None), ("c", None), ("d", 4))
    assert attributes["c"] == "y" * 50, "the map keeps them"
    with pytest.raises(KeyError, match="other"):
        attributes.null_out(body, ["other"])


def test_what_is_stored_as_null_already_gives_the_very_same_bytes():
    attributes = AttributeMap.decode(frames(("a", 1), ("b", None)))
    base, _ = attributes.encode()
    attributes["b"] = "x" * 50
    body, _ = attributes.encode()
    assert attributes.null_out(body, ["b"]) is base


def test_each_value_has_its_size():
    body = frames(("a", None), ("long", "x" * 300), ("", b""))
    assert value_sizes(body) == {"a": 1, "long": 303, "": 2}


# What is left out


def test_names_that_are_not_kept_are_left_out_and_stay_in_the_map():
    attributes = AttributeMap({"a": 1, "other": object(), "b": 2, "ab": 3})
    assert attributes.encode(keep=keep) == (frames(("a", 1), ("b", 2)), ())
    assert list(attributes) == ["a", "other", "b", "ab"]


def test_what_is_left_out_is_not_handed_to_a_serializer():
    attributes = AttributeMap({"a": 1, "other": Refused()})
    assert attributes.encode(keep=keep, nulls={}) == (frames(("a", 1)), ())
    assert Refused.n_encoded == 0


def test_changing_only_what_is_left_out_changes_nothing():
    attributes = AttributeMap.decode(frames(("a", 1)))
    base, _ = attributes.encode()
    attributes["other"] = [1]
    assert attributes.encode(keep=keep)[0] is base
    attributes.mark_saved(base)
    attributes["other"].append(2)
    assert attributes.encode(keep=keep)[0] is base
    assert attributes["other"] == [1, 2]
    del attributes["other"]
    assert attributes.encode(keep=keep)[0] is base


def test_what_is_left_out_outlives_a_save_and_a_rebase_in_the_map():
    attributes = AttributeMap.decode(frames(("a", 1)))
    attributes["a"], attributes["other"] = 2, [1]
    attributes.mark_saved(attributes.encode(keep=keep)[0])
    attributes.rebase(frames(("a", 3), ("b", 4)))
    assert attributes == {"a": 3, "b": 4, "other": [1]}


def test_frames_stored_before_under_such_a_name_stay_while_nothing_is_written():
    attributes = AttributeMap.decode(frames(("other", [1]), ("a", 1), ("more", 2)))
    base, _ = attributes.encode()
    assert attributes["other"] == [1]
    assert attributes["a"] == 1
    assert attributes.encode(keep=keep)[0] is base


def test_frames_stored_before_under_such_a_name_go_with_the_next_write():
    attributes = AttributeMap.decode(frames(("other", [1]), ("a", 1), ("more", 2), ("b", [3]), ("last", 4)))
    attributes["other"].append(1)
    attributes["b"].append(4)
    attributes["c"] = 5
    assert attributes.encode(keep=keep) == (frames(("a", 1), ("b", [3, 4])), ())


@pytest.mark.parametrize(
    "change",
    [
        lambda attributes: attributes.update(other=2),
        lambda attributes: attributes.update(other=object()),
        lambda attributes: attributes.pop("other"),
        lambda attributes: attributes["other"].append(2),
    ],
)
def test_an_outdated_frame_under_such_a_name_does_not_stay(change):
    attributes = AttributeMap.decode(frames(("a", 1), ("other", [1])))
    change(attributes)
    assert attributes.encode(keep=keep) == (frames(("a", 1)), ())


# What cannot be decoded


def test_a_value_that_cannot_be_decoded_is_told_once_when_it_is_read():
    told = []
    body = frames(("a", 1)) + encode_frame("broken", 0, b"\xc1")
    attributes = AttributeMap.decode(body, on_failure=told.append)
    assert attributes["a"] == 1
    assert told == []
    assert [attributes["broken"], attributes.get("broken")] == [None, None]
    assert names_of(told) == ["broken"]
    assert attributes.failures == tuple(told)
    assert attributes.copy()["broken"] is None
    assert len(told) == 1


def test_a_copy_tells_on_as_well():
    told = []
    attributes = AttributeMap.decode(encode_frame("broken", 0, b"\xc1"), on_failure=told.append)
    twin = attributes.copy()
    twin.rebase(encode_frame("worse", 0, b"\xc1\xc1"))
    assert twin["worse"] is None
    assert names_of(told) == ["broken", "worse"]


def test_a_value_that_two_read_at_once_is_told_once():
    told = []

    class Slow:
        name = "slow"

        def dumps(self, value):
            return b""

        def loads(self, data):
            if not told and not self.is_inside:
                self.is_inside = True
                assert attributes["broken"] is None
            raise RuntimeError("broken")

        is_inside = False

    serializer = Slow()
    body, _ = AttributeMap({"broken": 1}, serializer=serializer).encode()
    attributes = AttributeMap.decode(body, serializer=serializer, on_failure=told.append)
    assert attributes["broken"] is None
    assert names_of(told) == ["broken"]
    assert len(attributes.failures) == 1
