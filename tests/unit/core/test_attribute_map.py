import copy
import gc
import pickle
import sys
import threading
import weakref
from collections.abc import MutableMapping

import pytest

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import dumps, register_type
from msm_fast.errors import CorruptRecord
from tests.reference.record import encode_frame


class Tracked:
    """Counts how often it is encoded and decoded, and can be told to do something meanwhile."""

    n_encoded = 0
    n_decoded = 0
    meanwhile = staticmethod(lambda: None)

    def __init__(self, content):
        self.content = content

    @classmethod
    def encode(cls, value):
        cls.n_encoded += 1
        cls.meanwhile()
        return value.content

    @classmethod
    def decode(cls, content):
        cls.n_decoded += 1
        cls.meanwhile()
        return cls(content)


register_type(Tracked, "test.Tracked", Tracked.encode, Tracked.decode)


@pytest.fixture
def tracked(monkeypatch):
    monkeypatch.setattr(Tracked, "n_encoded", 0)
    monkeypatch.setattr(Tracked, "n_decoded", 0)
    return Tracked


def encode(attributes):
    body, failures = attributes.encode()
    assert failures == ()
    return body


def saved(**values):
    """Return a map as it is after a load."""
    return AttributeMap.decode(encode(AttributeMap(values)))


def frames(*pairs):
    return b"".join(encode_frame(name, 0, dumps(value)) for name, value in pairs)


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


# What may happen meanwhile


def test_decoding_may_read_change_and_save_the_map(monkeypatch):
    attributes = saved(a=Tracked(1), b=2)

    def act():
        monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: None))
        attributes["b"] = 3
        attributes.mark_saved(encode(attributes))

    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(act))
    assert attributes["a"].content == 1
    assert attributes == {"a": attributes["a"], "b": 3}


def test_a_name_deleted_while_it_is_decoded_is_gone(monkeypatch):
    attributes = saved(a=Tracked(1), b=2)
    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: attributes.__delitem__("a")))
    assert attributes.get("a") is None
    assert attributes == {"b": 2}


def test_encoding_may_change_the_map(monkeypatch):
    attributes = saved(a=Tracked(1), b=2)
    attributes["c"] = Tracked(3)
    attributes["a"].content = 9
    body = frames(("b", 5))

    def act():
        attributes["d"] = 4
        attributes.pop("b", None)
        monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: None))
        attributes.rebase(body)

    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(act))
    assert list(AttributeMap.decode(encode(attributes))) == ["a", "b", "c"]


@pytest.fixture
def while_comparing(monkeypatch):
    """Return a function that lets something be done once, while the next `Tracked` is encoded or decoded."""

    def plan(act):
        def once():
            monkeypatch.setattr(Tracked, "meanwhile", staticmethod(lambda: None))
            act()

        monkeypatch.setattr(Tracked, "meanwhile", staticmethod(once))

    return plan


@pytest.mark.parametrize("winner", [b"", frames(("a", 9), ("new", 9), ("b", 9))])
def test_what_is_set_while_a_rebase_compares_is_an_own_change(while_comparing, winner):
    attributes = saved(a=1, b=2)
    attributes["tracked"] = Tracked(1)
    while_comparing(lambda: attributes.update(new=5, b=6))
    attributes.rebase(winner)
    assert attributes["new"] == 5
    assert attributes["b"] == 6
    assert attributes.get("a") == (9 if winner else None)
    assert AttributeMap.decode(encode(attributes))["new"] == 5


def test_what_is_only_read_while_a_rebase_compares_is_no_own_change(while_comparing):
    attributes = saved(a=1, b=[2], c=[3], same=[4])
    attributes["tracked"] = Tracked(1)
    handed_out = []
    while_comparing(lambda: handed_out.extend([attributes["a"], attributes["b"], attributes["same"]]))
    attributes.rebase(frames(("a", 9), ("b", [9]), ("c", [9]), ("same", [4])))
    assert (attributes["a"], attributes["b"], attributes["c"]) == (9, [9], [9])
    assert attributes["same"] is handed_out[2]
    assert attributes.changed_names() == ({"tracked"}, set())


def test_what_is_deleted_while_a_rebase_compares_stays_deleted(while_comparing):
    attributes = saved(a=1, b=2)
    attributes["b"], attributes["tracked"] = 3, Tracked(1)

    def delete():
        del attributes["a"], attributes["b"]

    while_comparing(delete)
    attributes.rebase(frames(("a", 9), ("b", 9), ("c", 9)))
    assert attributes == {"c": 9, "tracked": attributes["tracked"]}
    assert attributes.changed_names() == ({"tracked"}, {"a", "b"})


def test_a_value_replaced_while_a_rebase_compares_it_is_the_one_that_stays(while_comparing):
    attributes = saved(a=1)
    attributes["tracked"] = Tracked(1)
    while_comparing(lambda: attributes.update(tracked="later"))
    attributes.rebase(frames(("tracked", "theirs")))
    assert attributes == {"tracked": "later"}


def test_what_is_saved_while_a_rebase_compares_is_no_own_change_any_more(while_comparing):
    attributes = saved(a=1, b=2, c=3)
    attributes["a"], attributes["tracked"], attributes["c"] = "longer", Tracked(1), "longer"
    while_comparing(lambda: attributes.mark_saved(encode(attributes)))
    theirs = {"a": 9, "b": 9, "c": 9, "tracked": 9}
    attributes.rebase(frames(*theirs.items()))
    assert attributes == theirs


def test_a_rebase_ends_though_something_is_set_each_time_it_compares(monkeypatch):
    attributes = saved(a=1)
    attributes["new0"] = Tracked(0)
    names = ["new0"]

    def set_another():
        names.append(f"new{len(names)}")
        attributes[names[-1]] = Tracked(0)

    monkeypatch.setattr(Tracked, "meanwhile", staticmethod(set_another))
    attributes.rebase(frames(("a", 9)))
    assert len(names) < 100
    assert list(attributes) == ["a", *names], "what could not be compared is kept"


@pytest.mark.parametrize("serializer", ["native", ("native", "json"), ("json", "native")])
def test_a_lack_of_memory_is_no_failure_of_a_value(monkeypatch, serializer):
    def lack_memory():
        raise MemoryError

    attributes = AttributeMap.decode(encode(AttributeMap({"a": Tracked(1)})), serializer=serializer)
    with monkeypatch.context() as short:
        short.setattr(Tracked, "meanwhile", staticmethod(lack_memory))
        with pytest.raises(MemoryError):
            attributes.get("a")
    assert attributes.failures == ()
    assert attributes["a"].content == 1
    attributes["a"] = Tracked(2)
    with monkeypatch.context() as short:
        short.setattr(Tracked, "meanwhile", staticmethod(lack_memory))
        with pytest.raises(MemoryError):
            attributes.encode()
    assert read_back(attributes)["a"].content == 2


@pytest.fixture
def _busy_threads():
    """Let threads take turns far more often than they would."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("_busy_threads")
def test_threads_that_set_names_lose_none_to_rebases():
    attributes = saved(shared=0)
    n_names = 2000
    slow = Tracked(1)

    def set_names(prefix):
        for i in range(n_names):
            attributes[f"{prefix}{i % 50}"] = i

    threads = [threading.Thread(target=set_names, args=(prefix,)) for prefix in "xy"]
    attributes["tracked"] = slow
    for thread in threads:
        thread.start()
    n_rebases = 0
    while any(thread.is_alive() for thread in threads) or n_rebases < 20:
        attributes.rebase(frames(("shared", n_rebases)))
        n_rebases += 1
    for thread in threads:
        thread.join()
    expected = {f"{prefix}{i}": n_names - 50 + i for prefix in "xy" for i in range(50)}
    assert attributes == {"shared": n_rebases - 1, "tracked": slow, **expected}


def test_threads_that_change_values_meanwhile_give_whole_frames():
    attributes = AttributeMap({"list": [], "dict": {}, "set": set(), "bytes": bytearray()})
    is_over = threading.Event()

    def churn():
        n_rounds = 0
        while not is_over.is_set():
            n_rounds += 1
            attributes["list"].append(n_rounds)
            attributes["dict"][n_rounds % 50] = n_rounds
            attributes["dict"].pop((n_rounds + 7) % 50, None)
            attributes["set"] ^= {n_rounds % 30}
            attributes["bytes"].extend(b"x")
            if n_rounds % 100 == 0:
                attributes["list"].clear()
                attributes["bytes"].clear()

    threads = [threading.Thread(target=churn) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(300):
            body, failures = attributes.encode()
            assert failures == ()
            assert set(dict(AttributeMap.decode(body).items())) == {"list", "dict", "set", "bytes"}
            attributes.mark_saved(body)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def test_a_map_in_a_cycle_is_collected():
    class Node:
        pass

    node = Node()
    node.attributes = AttributeMap({"node": node})
    watch = weakref.ref(node)
    del node
    gc.collect()
    assert watch() is None


def test_values_that_die_in_a_rebase_may_use_the_map():
    seen = []
    attributes = AttributeMap()

    class Mourned:
        def __init__(self, content):
            self.content = content

        def __del__(self):
            seen.append(attributes.get("a"))

    register_type(Mourned, f"test.Mourned.{id(seen)}", lambda value: value.content, Mourned)
    attributes = saved(a=1, b=Mourned(2))
    attributes["b"]
    seen.clear()
    attributes.rebase(frames(("a", 5)))
    assert seen == [5]


def interrupted(prepare, act, meanwhile):
    """Give a map for each collection of garbage that act(map) starts: meanwhile(map) was called in it.

    Before Python 3.12 any object that is made may start one, and what dies in it may let other threads in.
    """
    thresholds = gc.get_threshold()
    for n in range(10_000):
        attributes = prepare()
        n_left = n
        in_use = [AttributeMap(MANY), *({} for _ in MANY), *([] for _ in MANY)]  # memory that is there need not be made

        def collect(phase, info, attributes=attributes):
            nonlocal n_left
            n_left -= 1
            if n_left == -1:
                meanwhile(attributes)

        gc.callbacks.append(collect)
        gc.set_threshold(1)
        try:
            act(attributes)
        finally:
            gc.set_threshold(*thresholds)
            gc.callbacks.remove(collect)
        assert len(in_use) > len(MANY)
        if n_left >= 0:
            return
        yield attributes


MANY = {f"many{i}": i for i in range(100)}
OURS = {"a": [1], "b": [2], "c": [3], **MANY}
THEIRS = {"c": ["longer"], "d": [4], "b": [2], "a": [1], **MANY}


def ours():
    return saved(**OURS)


def rebase_on_theirs(attributes):
    attributes.rebase(frames(*THEIRS.items()))


def read_back(attributes):
    """Return what another process would find."""
    return dict(AttributeMap.decode(encode(attributes)).items())


def test_a_rebase_in_a_collection_that_a_set_starts_leaves_the_map_whole():
    def set_one(attributes):
        attributes["b"] = "own"

    for attributes in interrupted(ours, set_one, rebase_on_theirs):
        assert read_back(attributes) in ({**OURS, "b": "own"}, {**THEIRS, "b": "own"})


def test_a_rebase_in_a_collection_that_an_index_starts_leaves_the_map_whole():
    def read_much(attributes):
        for _ in range(40):
            assert "none" not in attributes
        assert attributes["a"] == [1]

    for attributes in interrupted(ours, read_much, rebase_on_theirs):
        rebase_on_theirs(attributes)
        assert attributes == THEIRS
        assert read_back(attributes) == THEIRS


def test_what_is_set_in_a_collection_that_a_rebase_starts_is_not_lost():
    def change(attributes):
        attributes["new"] = 5
        attributes["b"] = "own"
        attributes.pop("a")

    def prepare():
        attributes = ours()
        assert dict(attributes.items()) == OURS
        return attributes

    expected = {**THEIRS, "new": 5, "b": "own"}
    del expected["a"]
    for attributes in interrupted(prepare, rebase_on_theirs, change):
        assert attributes == expected
        assert read_back(attributes) == expected


def test_a_rebase_in_a_collection_that_a_copy_starts_leaves_the_copy_whole():
    copies = []

    def prepare():
        attributes = saved(**OURS, e=5)
        del attributes["e"]
        return attributes

    def copy_it(attributes):
        copies.append(attributes.copy())

    for _ in interrupted(prepare, copy_it, rebase_on_theirs):
        copied = copies.pop()
        assert read_back(copied) == dict(copied.items())
        assert read_back(copied) in (OURS, THEIRS)


def test_what_is_deleted_in_a_collection_that_an_encoding_starts_does_not_break_it():
    bodies = []

    def prepare():
        attributes = saved(**OURS, d=4, e=5)
        del attributes["d"]
        return attributes

    def encode_it(attributes):
        bodies.append(encode(attributes))

    def delete(attributes):
        del attributes["e"], attributes["b"]

    for _ in interrupted(prepare, encode_it, delete):
        found = dict(AttributeMap.decode(bodies.pop()).items())
        assert found in ({**OURS, "e": 5}, {"a": [1], "c": [3], **MANY})


def test_values_that_die_while_the_map_is_cleared_may_clear_it_too():
    attributes = AttributeMap()

    class Last:
        def __del__(self):
            attributes.clear()

    attributes.update(last=Last(), one=1, two=2)
    attributes.clear()
    assert not attributes
