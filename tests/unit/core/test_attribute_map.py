"""A map of attributes is used like a dict, at the cost of what is touched, and knows what has changed."""

import copy
import pickle
from collections.abc import MutableMapping

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast.errors import CorruptRecord
from tests.unit.core.attribute_maps import Tracked, encode, frames, saved


@pytest.fixture
def tracked(monkeypatch):
    monkeypatch.setattr(Tracked, "n_encoded", 0)
    monkeypatch.setattr(Tracked, "n_decoded", 0)
    return Tracked


# Reading and writing like a dict


def test_it_is_a_mutable_mapping():
    assert isinstance(AttributeMap(), MutableMapping)
    assert AttributeMap({"a": 1}) == {"a": 1} == AttributeMap([("a", 1)])
    assert AttributeMap({"a": 1}) != {"a": 2}
    assert AttributeMap() != 0
    with pytest.raises(TypeError):
        hash(AttributeMap())


def test_a_decoded_map_reads_like_the_dict_it_was():
    attributes = saved(a=1, b=[2], c=None)
    assert len(attributes) == 3
    assert list(attributes) == ["a", "b", "c"]
    assert list(reversed(attributes)) == ["c", "b", "a"]
    assert dict(attributes.items()) == {"a": 1, "b": [2], "c": None}
    assert list(attributes.values()) == [1, [2], None]
    assert "a" in attributes
    assert "d" not in attributes
    assert attributes.get("d", 5) == 5
    with pytest.raises(KeyError, match="d"):
        attributes["d"]
    with pytest.raises(KeyError, match="d"):
        del attributes["d"]


def test_a_value_is_the_same_object_each_time_it_is_read():
    attributes = saved(a=[1])
    assert attributes["a"] is attributes["a"] is attributes.get("a")


def test_order_is_that_of_a_dict():
    attributes = saved(a=1, b=2, c=3)
    attributes["d"] = 4
    attributes["a"] = 0
    del attributes["b"]
    attributes["b"] = 2
    assert list(attributes) == ["a", "c", "d", "b"]
    assert list(AttributeMap.decode(encode(attributes))) == ["a", "c", "d", "b"]


def test_removing_works_as_in_a_dict():
    attributes = saved(a=1, b=[2], c=3)
    assert attributes.pop("a") == 1
    assert attributes.pop("a", None) is None
    with pytest.raises(KeyError, match="a"):
        attributes.pop("a")
    assert attributes.popitem() == ("c", 3)
    assert attributes == {"b": [2]}
    attributes.clear()
    assert len(attributes) == 0
    assert not attributes
    assert encode(attributes) == b""
    with pytest.raises(KeyError, match="empty"):
        attributes.popitem()


def test_update_setdefault_and_unions_work_as_in_a_dict():
    attributes = saved(a=1)
    assert attributes.setdefault("a", 2) == 1
    assert attributes.setdefault("b", 2) == 2
    attributes.update({"c": 3}, d=4)
    attributes |= [("e", 5)]
    assert attributes == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    union = attributes | {"a": 0, "f": 6}
    assert type(union) is AttributeMap
    assert (union["a"], union["f"], attributes["a"]) == (0, 6, 1)
    assert list({"z": 0, "a": 9} | attributes)[:2] == ["z", "a"]
    assert ({"a": 9} | attributes)["a"] == 1
    with pytest.raises(TypeError):
        attributes | 3


def test_a_copy_holds_the_same_objects_and_goes_its_own_way():
    attributes = saved(a=[1], b=2)
    for twin in (attributes.copy(), copy.copy(attributes)):
        assert twin["a"] is attributes["a"]
        del twin["b"]
        assert "b" in attributes
        assert not attributes.is_changed
        assert twin.changed_names() == (set(), {"b"})


def test_names_are_str_and_encodable():
    attributes = AttributeMap()
    for name in (1, b"a", None, ("a",)):
        with pytest.raises(TypeError, match="must be str"):
            attributes[name] = 1
        assert name not in attributes
        with pytest.raises(KeyError):
            attributes[name]
    with pytest.raises(ValueError, match="session attribute's name has a lone surrogate"):
        attributes["\ud800"] = 1
    assert "\ud800" not in saved(a=1)
    with pytest.raises(ValueError, match="65536"):
        attributes["x" * 65536] = 1
    with pytest.raises(ValueError, match="65536"):
        attributes["ü" * 32768] = 1
    attributes["x" * 65535] = attributes[""] = 1
    assert AttributeMap.decode(encode(attributes)) == attributes


def test_a_name_of_a_str_subclass_becomes_str():
    class Loud(str):
        __slots__ = ()

        def __str__(self):
            return self.upper()

    attributes = saved(a=1)
    attributes[Loud("b")] = attributes[Loud("a")]
    assert [(type(name), name) for name in attributes] == [(str, "a"), (str, "b")]


def test_the_repr_shows_names_and_no_value():
    attributes = AttributeMap({"user": "secret", "token": "hidden"})
    assert repr(attributes) == "<AttributeMap 'user', 'token'>"


def test_a_map_is_not_pickled():
    with pytest.raises(TypeError, match="encode"):
        pickle.dumps(AttributeMap())


# Cost follows what is touched


def test_nothing_is_decoded_before_it_is_read(tracked):
    attributes = saved(**{f"name{i}": Tracked(i) for i in range(100)})
    assert len(attributes) == 100
    assert "name5" in attributes
    assert tracked.n_decoded == 0
    assert attributes["name5"].content == 5
    assert tracked.n_decoded == 1


def test_frames_that_were_not_touched_are_not_encoded_again(tracked):
    attributes = saved(**{f"name{i}": Tracked(i) for i in range(100)})
    before = tracked.n_encoded
    attributes["name3"] = 1
    del attributes["name7"]
    assert attributes["name9"].content == 9
    encode(attributes)
    assert tracked.n_encoded == before + 1


def test_immutable_values_that_were_only_read_are_not_encoded_again(tracked):
    attributes = saved(a=1, b=("x", 2.5, frozenset({3})), c=(1, [2]), d=Tracked(1))
    assert attributes == {"a": 1, "b": ("x", 2.5, frozenset({3})), "c": (1, [2]), "d": attributes["d"]}
    attributes["c"][1].append(3)
    assert attributes.changed_names() == ({"c"}, set())


def test_many_lookups_and_iteration_find_what_single_ones_find():
    values = {f"name{i}": i for i in range(200)}
    attributes = saved(**values)
    assert [attributes[name] for name in values] == list(values.values())
    assert "other" not in attributes
    assert list(attributes) == list(values)


# What has changed


def test_nothing_changed_gives_the_very_same_bytes_object():
    body = encode(AttributeMap({"a": 1, "b": [2], "c": {"d": {3}}}))
    attributes = AttributeMap.decode(body)
    assert attributes.encode()[0] is body
    dict(attributes.items())
    assert attributes.encode()[0] is body
    assert not attributes.is_changed
    assert AttributeMap.decode(b"").encode()[0] == b""


def test_a_value_replaced_by_an_equal_one_is_unchanged():
    body = encode(AttributeMap({"a": 1, "b": [2]}))
    attributes = AttributeMap.decode(body)
    attributes["a"], attributes["b"] = 1, [2]
    assert attributes.changed_names() == (set(), set())
    assert attributes.encode()[0] is body
    attributes["a"] = True
    assert attributes.changed_names() == ({"a"}, set())


@pytest.mark.parametrize(
    ("value", "mutate"),
    [
        ([1], lambda value: value.append(2)),
        ({"a": {"b": []}}, lambda value: value["a"]["b"].append(1)),
        ({1}, lambda value: value.add(2)),
        (bytearray(b"a"), lambda value: value.extend(b"b")),
        (([],), lambda value: value[0].append(1)),
        ({"a": 1, "b": 2}, lambda value: value.update(a=value.pop("a"))),
        ([1, 2, 3], lambda value: value.__setitem__(1, True)),
    ],
)
def test_a_change_inside_a_value_is_found(value, mutate):
    attributes = saved(before=1, value=value, after=2)
    mutate(attributes["value"])
    assert attributes.is_changed
    assert attributes.changed_names() == ({"value"}, set())
    assert AttributeMap.decode(encode(attributes)) == attributes


def test_sets_and_deletes_are_told_apart():
    attributes = saved(a=1, b=2, c=3)
    attributes["a"] = 5
    attributes["new"] = 1
    attributes["gone"] = 1
    del attributes["b"], attributes["gone"]
    assert attributes.changed_names() == ({"a", "new"}, {"b"})


def test_a_new_map_is_changed_once_it_has_an_attribute():
    attributes = AttributeMap()
    assert not attributes.is_changed
    attributes["a"] = None
    assert attributes.is_changed


def test_after_a_save_nothing_is_changed_and_later_mutations_are_found():
    attributes = saved(a=[1], b=2)
    attributes["c"] = mine = {"x": [1]}
    attributes["a"].append(2)
    held = attributes["a"]
    body = encode(attributes)
    attributes.mark_saved(body)
    assert not attributes.is_changed
    assert attributes.encode()[0] is body
    assert attributes["a"] is held
    assert attributes["c"] is mine
    mine["x"].append(2)
    assert attributes.changed_names() == ({"c"}, set())
    held.append(3)
    assert attributes.changed_names() == ({"a", "c"}, set())


def test_what_changed_between_encoding_and_saving_stays_changed():
    attributes = saved(a=1, b=2, c=[3])
    attributes["new"] = 1
    body = encode(attributes)
    attributes["a"] = 5
    attributes["c"].append(4)
    del attributes["b"], attributes["new"]
    attributes.mark_saved(body)
    assert attributes == {"a": 5, "c": [3, 4]}
    assert attributes.changed_names() == ({"a", "c"}, {"b", "new"})


def test_saving_bytes_that_are_no_frames_leaves_the_map_as_it_was():
    attributes = saved(a=1, b=2)
    attributes["a"] = 3
    for act in (attributes.mark_saved, attributes.rebase):
        with pytest.raises(CorruptRecord):
            act(b"\0")
        assert attributes == {"a": 3, "b": 2}
        assert attributes.changed_names() == ({"a"}, set())


# Rebasing


def test_a_rebase_keeps_own_changes_and_takes_the_rest():
    attributes = saved(set=1, inside=[1], deleted=1, theirs=1, gone=1, same=[0])
    same = attributes["same"]
    attributes["set"], attributes["new"] = 2, 1
    attributes["inside"].append(2)
    del attributes["deleted"]
    attributes["theirs"]
    winner = frames(("set", 9), ("inside", [9]), ("deleted", 9), ("theirs", 9), ("same", [0]), ("other", 9))
    attributes.rebase(winner)
    assert attributes == {"set": 2, "inside": [1, 2], "theirs": 9, "same": [0], "other": 9, "new": 1}
    assert attributes["same"] is same
    assert attributes.changed_names() == ({"set", "inside", "new"}, {"deleted"})
    assert AttributeMap.decode(encode(attributes)) == attributes


def test_an_own_change_comes_back_where_the_winner_deleted_it():
    attributes = saved(a=[1], b=1)
    attributes["a"].append(2)
    attributes["b"]
    attributes.rebase(b"")
    assert attributes == {"a": [1, 2]}
    assert attributes.changed_names() == ({"a"}, set())


def test_two_writers_of_different_names_both_win():
    body = encode(AttributeMap({"a": 1, "b": 1}))
    first, second = AttributeMap.decode(body), AttributeMap.decode(body)
    first["a"], second["b"] = 2, 2
    second.rebase(encode(first))
    assert second == {"a": 2, "b": 2}


def test_after_a_rebase_a_kept_object_is_still_watched():
    attributes = saved(a=[1])
    attributes["a"].append(2)
    attributes.rebase(frames(("a", [9])))
    attributes.mark_saved(encode(attributes))
    attributes["a"].append(3)
    assert attributes.changed_names() == ({"a"}, set())
