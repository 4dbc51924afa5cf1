"""The garbage collector, and values that it lets die, use a map while it is at work."""

import gc
import weakref

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import register_type
from tests.unit.core.attribute_maps import encode, frames, read_back, saved


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
