"""A request's session as a mapping: what a dict does, it does."""

from collections.abc import Mapping, MutableMapping
from datetime import timedelta

import pytest

from msm_fast import SessionManager
from msm_fast._core.attributes import AttributeMap
from msm_fast._core.session import Session
from msm_fast._core.session_id import SessionId
from msm_fast._core.state import SessionState

STEPS = {
    "get": lambda mapping: (mapping["a"], mapping.get("a"), mapping.get("x"), mapping.get("x", 5)),
    "set and replace": lambda mapping: (mapping.__setitem__("c", 3), mapping.__setitem__("a", 9)),
    "delete": lambda mapping: mapping.__delitem__("a"),
    "in": lambda mapping: ("a" in mapping, "x" in mapping, 5 in mapping),
    "len and truth": lambda mapping: (len(mapping), bool(mapping)),
    "iterate": lambda mapping: (list(mapping), list(mapping.keys()), list(mapping.values()), list(mapping.items())),
    "pop": lambda mapping: (mapping.pop("a"), mapping.pop("x", 5), mapping.pop("b", default=None)),
    "pop what is not there": lambda mapping: mapping.pop("x"),
    "popitem of the only one": lambda mapping: (mapping.pop("a"), mapping.popitem()),
    "popitem of none": lambda mapping: (mapping.clear(), mapping.popitem()),
    "setdefault": lambda mapping: (mapping.setdefault("a", 5), mapping.setdefault("c", 5), mapping.setdefault("d")),
    "update": lambda mapping: (mapping.update({"a": 5}), mapping.update([("c", 6)], d=7)),
    "clear": lambda mapping: mapping.clear(),
    "read what is not there": lambda mapping: mapping["x"],
    "delete what is not there": lambda mapping: mapping.__delitem__("x"),
    "compare": lambda mapping: (mapping == {"a": 1, "b": [2]}, mapping == {}, mapping != {}, mapping == 5),
}


class Dict(dict):
    """A dict, but that pop takes its default by name as MutableMapping's does."""

    def pop(self, name, *given, **named):
        return super().pop(name, *given, *named.values())


def outcome(step, mapping):
    try:
        return step(mapping), dict(mapping)
    except (KeyError, TypeError) as error:
        return type(error), dict(mapping)


def session_of(**attributes):
    return Session(None, lambda: SessionState(SessionId("abc"), AttributeMap(attributes), 1, 1, 60, 0))


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_it_does_what_a_dict_does(step):
    assert outcome(step, session_of(a=1, b=[2])) == outcome(step, Dict(a=1, b=[2]))


def test_it_is_a_mutable_mapping_and_can_be_unpacked():
    session = session_of(a=1)
    assert isinstance(session, MutableMapping)
    assert isinstance(session, Mapping)
    assert {**session, "b": 2} == {"a": 1, "b": 2}
    with pytest.raises(TypeError):
        hash(session)


def test_it_is_looked_up_when_it_is_first_used_and_once():
    looked_up = []
    state = SessionState(SessionId("abc"), AttributeMap({"a": 1}), 1, 1, 60, 0)
    session = Session(lambda: looked_up.append(1) or state, None)
    assert not session.was_used
    assert not session.is_at_hand
    assert (session["a"], session["a"]) == (1, 1)
    assert (looked_up, session.was_used, session.is_at_hand) == ([1], True, True)


def test_one_that_is_not_found_is_a_new_one():
    assert session_of().is_new
    assert dict(Session(lambda: None, lambda: session_of(a=1).state)) == {"a": 1}


@pytest.mark.parametrize("is_found", [True, False])
def test_of_two_threads_that_look_it_up_at_once_both_have_what_the_first_one_found(is_found):
    def find():
        """Take as long as another thread needs to look it up, and to write to it."""
        if not is_late:
            is_late.append(True)
            session["first"] = 1
        return SessionState(SessionId("abc"), AttributeMap({}), 1, 1, 60, 0) if is_found else None

    is_late = []
    session = Session(find, lambda: SessionState(SessionId("new"), AttributeMap({}), 1, 1, 60, 0))
    session["second"] = 2
    assert session == {"first": 1, "second": 2}


def log_in(session):
    session.rotate_id()
    session["user"] = "ann"


@pytest.mark.parametrize("is_shared", [True, False])
@pytest.mark.parametrize(
    ("first", "second", "left"),
    [
        (log_in, Session.rotate_id, {"cart": 1, "user": "ann"}),
        (log_in, Session.invalidate, {}),
        (Session.invalidate, Session.rotate_id, {}),
    ],
    ids=["both give it a new id", "one ends it", "one has ended it"],
)
def test_of_two_threads_that_give_it_a_new_id_or_end_it_at_once_none_undoes_what_the_other_does(
    is_shared, first, second, left
):
    minted = []

    def mint():
        minted.append(1)
        if len(minted) == 1:
            first(session)  # as another thread does while this one is here
        return SessionState(SessionId.generate(), AttributeMap(), 1, 1, 60, 0)

    state = SessionState(SessionId("abc"), AttributeMap({"cart": 1}), 1, 1, 60, 0, local_generation=1)
    state.is_live = is_shared
    session = Session(None, mint, state=state)
    second(session)
    assert dict(session) == left
    assert SessionId("abc") in session.state.retired


@pytest.mark.parametrize(
    ("first", "left"), [(log_in, {"cart": 1, "user": "ann"}), (Session.invalidate, {})], ids=["login", "logout"]
)
def test_nor_does_one_that_comes_while_the_values_of_a_shared_session_are_decoded(first, left):
    class Cart:
        name = "cart"

        @staticmethod
        def dumps(value):
            return b"%d" % value

        @staticmethod
        def loads(data):
            if not acted:
                acted.append(1)
                first(session)  # as another thread does while this one is here
            return int(data)

    acted = []
    body, _ = AttributeMap({"cart": 1}, serializer=Cart).encode()
    state = SessionState(SessionId("abc"), AttributeMap.decode(body, serializer=Cart), 1, 1, 60, 0, is_live=True)
    session = Session(None, lambda: SessionState(SessionId.generate(), AttributeMap(), 1, 1, 60, 0), state=state)
    session.rotate_id()
    assert acted
    assert dict(session) == left
    assert SessionId("abc") in session.state.retired


def test_what_a_look_up_raises_is_raised_at_each_use():
    def fail():
        raise LookupError

    session = Session(fail, None)
    for _ in range(2):
        with pytest.raises(LookupError):
            session.get("a")
    assert session.was_used
    assert not session.is_at_hand


@pytest.mark.parametrize("seconds", [0, 0.5, -1, 2**32, float("nan"), "60", timedelta(hours=1)])
def test_a_lifetime_that_memcached_cannot_keep_is_refused(seconds):
    session = session_of(a=1)
    for name in ("max_inactive", "absolute_lifetime"):
        with pytest.raises(ValueError, match=name):
            setattr(session, name, seconds)


def test_its_views_follow_it():
    with SessionManager() as manager:
        session = manager.create()
        keys = session.keys()
        session["a"] = 1
        assert list(keys) == ["a"]
