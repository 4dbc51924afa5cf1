"""Anything at all as an argument of what the compiled core exports: an error that is named there, and no crash."""

from functools import lru_cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from msm_fast._core import wire
from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import dumps, loads, register_type
from msm_fast._core.counts import Counts
from msm_fast._core.near_cache import NearCache
from msm_fast._core.placement import RendezvousHash
from msm_fast._core.record import decode_record, encode_record, value_sizes
from msm_fast._core.replies import ProtocolError, Reply, ReplyParser
from msm_fast._core.session import Session
from msm_fast._core.session_id import SessionId, StorageKeys
from msm_fast._core.state import NearCopy, SessionState, Stored
from msm_fast.engine import copies, versions
from msm_fast.engine.as_usual import all_answered
from msm_fast.engine.context import Clock, Context
from msm_fast.engine.essentials import Essentials
from msm_fast.engine.usual_loading import Question, UsualLoading
from msm_fast.engine.usual_saving import UsualSaving, Writing
from msm_fast.errors import MsmError
from msm_fast.settings import Settings
from tests.property.values import values


class Boom(Exception):
    pass


class Hostile:
    """Raises from whatever is asked of it."""

    def _raise(self, *arguments):
        raise Boom

    __len__ = __iter__ = __eq__ = __hash__ = __bool__ = __index__ = __float__ = __str__ = __repr__ = _raise
    __getitem__ = __contains__ = __call__ = __getattr__ = __lt__ = keys = _raise


class Slippery(bytes):
    """Bytes of a subclass, which the core must not take for bytes."""

    def __len__(self):
        return 10**6  # no more: tuple() makes and clears room for as many before it takes the first


def state():
    return SessionState(SessionId("p"), AttributeMap(), 1, 1, 60, 0)


def near_copy():
    return NearCopy(b"", 0, 1, 1, 60, {}, 0.0)


@lru_cache
def context():
    clock = Clock(lambda: 1.0, lambda: 1e9)
    return Context(Settings.build("n1:127.0.0.1:1,n2:127.0.0.1:2"), clock, Random(1))


things = st.one_of(
    values,
    st.integers(),
    st.floats(),
    st.text(max_size=300),
    st.binary(max_size=300),
    st.lists(st.one_of(st.text(max_size=5), st.integers(), st.none()), max_size=4),
    st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.floats(), st.none()), max_size=4),
    st.sampled_from([Hostile, object, lambda: Slippery(b"ab"), lambda: memoryview(b"ab"), lambda: iter("ab")]).map(
        lambda make: make()
    ),
    st.sampled_from([type, print, range(3), 10**30]),
)
arguments = st.lists(things, max_size=4).map(tuple)

ENTRIES = [
    dumps,
    loads,
    RendezvousHash,
    RendezvousHash(["a", "b"]).node_for,
    RendezvousHash({"a": 1, "b": 2}).ranked,
    RendezvousHash(["a", "b"]).nodes_for,
    SessionId,
    SessionId.parse,
    SessionId.generate,
    SessionId("p").with_node,
    SessionId("p").with_route,
    AttributeMap,
    AttributeMap.decode,
    lambda *arguments: AttributeMap.decode(*arguments).encode(),
    lambda *arguments: AttributeMap({"a": 1}).update(*arguments),
    lambda *arguments: AttributeMap({"a": 1}).get(*arguments),
    lambda *arguments: AttributeMap({"a": 1}).pop(*arguments),
    lambda *arguments: AttributeMap({"a": 1}).__setitem__(*arguments),
    lambda *arguments: AttributeMap({"a": 1}).__contains__(*arguments),
    lambda *arguments: AttributeMap({"a": 1}).null_out(*arguments),
    lambda *arguments: AttributeMap({"a": 1}).rebase(*arguments),
    lambda *arguments: AttributeMap({"a": 1}).mark_saved(*arguments),
    value_sizes,
    decode_record,
    lambda *arguments: encode_record(*arguments, generation=1, created_ms=1, accessed_ms=1),
    lambda key, *arguments: encode_record(b"k", b"", **dict.fromkeys(TIMES, key), lineage=arguments),
    NearCache,
    NearCache(3).get,
    NearCache(3).pop,
    NearCache(3, 100).put,
    NearCache(3).__contains__,
    wire.get,
    wire.store,
    wire.delete,
    wire.encode,
    wire.exptime,
    ReplyParser,
    Reply,
    ReplyParser([wire.get(b"k")], 1).feed,
    Counts,
    Counts(["a"]).add,
    StorageKeys,
    StorageKeys("p:", False).of,
    StorageKeys("p:", True).of,
    Stored,
    NearCopy,
    lambda *arguments: near_copy().record(*arguments),
    lambda *arguments: near_copy().is_copy(*arguments),
    SessionState,
    lambda attribute, value: setattr(state(), attribute, value),
    Session,
    lambda *arguments: Session(None, state).update(*arguments),
    lambda *arguments: Session(None, state).__getitem__(*arguments),
    lambda *arguments: setattr(Session(None, state), "max_inactive", *arguments),
    lambda found: Session(lambda: found, state).get("a"),
    lambda minted: Session(None, lambda: minted).get("a"),
    versions.version,
    versions.cas_of,
    versions.life_of,
    copies.put,
    copies.question,
    copies.is_over,
    copies.last_access_ms,
    copies.encode_state,
    copies.encode_tombstone,
    Essentials,
    lambda *arguments: context().essentials.near_copy(*arguments),
    lambda *arguments: context().essentials.keep_near(*arguments),
    lambda *arguments: context().essentials.must_ask_backups(*arguments),
    lambda *arguments: context().essentials.ttl_s(*arguments),
    lambda *arguments: context().essentials.life_s(*arguments),
    lambda *arguments: context().essentials.exptime(*arguments),
    all_answered,
    lambda *arguments: context().usual_loading.ask_for(*arguments),
    lambda *arguments: context().usual_loading.ask(*arguments),
    lambda *arguments: context().usual_loading.must_ask_backups(*arguments),
    lambda *arguments: context().usual_loading.found(*arguments),
    lambda *arguments: context().usual_saving.begin(*arguments),
    lambda *arguments: context().usual_saving.plan(*arguments),
    lambda *arguments: context().usual_saving.stored(*arguments),
    lambda *arguments: context().usual_saving.commit(*arguments),
    lambda *arguments: context().usual_loading.found(Question.__new__(Question), *arguments),
    lambda *arguments: context().usual_saving.stored(Writing.__new__(Writing), *arguments),
    lambda *arguments: UsualLoading.__new__(UsualLoading).ask(SessionId("p"), True),
    lambda *arguments: UsualSaving.__new__(UsualSaving).begin(state()),
]
TIMES = ("generation", "created_ms", "accessed_ms")
DOCUMENTED = (
    MsmError,
    TypeError,
    ValueError,
    KeyError,
    IndexError,
    AttributeError,
    ArithmeticError,
    Boom,
    ProtocolError,
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: getattr(entry, "__qualname__", "?"))
@given(arguments=arguments)
@settings(max_examples=60)
def test_any_arguments_give_a_result_or_a_documented_error(entry, arguments):
    try:
        entry(*arguments)
    except DOCUMENTED:
        return


@given(things.filter(lambda thing: not isinstance(thing, type)), things, things, things)
def test_what_is_no_class_is_not_registered(cls, name, encode, decode):
    with pytest.raises((MsmError, Boom)):
        register_type(cls, name, encode, decode)


# What keys and values do: keys of two hashes, so that they meet, whenever they are compared; all of them when they die.
actions = st.lists(
    st.tuples(
        st.sampled_from(["get", "put", "pop", "clear", "in", "len", "keys"]), st.integers(0, 5), st.integers(0, 40)
    ),
    max_size=40,
)


class Meddler:
    """A key and a value: does the next of some actions whenever the cache gives it the chance."""

    def __init__(self, number, do_next):
        self.number = number
        self.do_next = do_next

    def __hash__(self):
        return self.number % 2

    def __eq__(self, other):
        self.do_next()
        return isinstance(other, Meddler) and self.number == other.number

    def __del__(self):
        self.do_next()


@given(actions, actions, st.integers(1, 4), st.integers(1, 60))
@settings(max_examples=150)
def test_keys_and_values_that_meddle_leave_a_cache_that_keeps_its_budgets(outer, inner, max_entries, max_bytes):
    cache = NearCache(max_entries, max_bytes)
    todo = list(inner)

    def act(action, number, size):
        match action:
            case "get":
                cache.get(Meddler(number, do_next))
            case "put":
                cache.put(Meddler(number, do_next), Meddler(number, do_next), size)
            case "pop":
                cache.pop(Meddler(number, do_next))
            case "clear":
                cache.clear()
            case "in":
                Meddler(number, do_next) in cache  # noqa: B015
            case "len":
                len(cache)
            case "keys":
                cache.keys()

    def do_next():
        if todo:
            act(*todo.pop())

    for step in outer:
        act(*step)
        assert len(cache) <= max_entries
        assert cache.nbytes <= max_bytes
        assert len(cache.keys()) == len(cache)
    todo.clear()
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)
