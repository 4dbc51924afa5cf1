"""One round of each kind of work that the core does, what fails included.

python -m tests.leaks.rounds N prints how many kilobytes the process grew by over N rounds of everything.
"""

import contextlib
import datetime
import os
import sys
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from uuid import UUID
from zoneinfo import ZoneInfo

from msm_fast._core import wire
from msm_fast._core.attributes import AttributeMap
from msm_fast._core.codec import dumps, loads
from msm_fast._core.near_cache import NearCache
from msm_fast._core.placement import RendezvousHash
from msm_fast._core.record import decode_record, encode_record, value_sizes
from msm_fast._core.record_format import RecordFormat
from msm_fast._core.replies import ProtocolError, ReplyParser
from msm_fast._core.session_id import SessionId
from msm_fast.errors import CorruptRecord, InvalidSessionId
from tests.simulation.clock import VirtualClock
from tests.simulation.driver import SimulatedDriver
from tests.simulation.worker import Worker, make_settings


class Odd:
    """No serializer carries this."""


VALUES = [
    None,
    True,
    2**70,
    -5,
    1.5,
    1 - 2j,
    "text" * 300,
    b"bytes" * 300,
    bytearray(b"x"),
    [1, [2, ["three"]]],
    (1, ("two",)),
    {"a": {"b": [None]}, (1, 2): 3},
    {1, "a", (2,)},
    frozenset({"x"}),
    datetime.datetime(2024, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
    datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "CET")),
    datetime.date(2024, 2, 29),
    datetime.timedelta(1, 2, 3),
    Decimal("1.20"),
    Fraction(-7, 3),
    UUID(int=5),
]
ENCODED = dumps(VALUES)
UNENCODABLE = [
    Odd(),
    [1, "a", Odd()],
    {"a": [Odd()]},
    {Odd(): 1},
    (1, Odd()),
    {1, Odd},
    "\ud800",
    ["x" * 5000, "\ud800"],
    dict.fromkeys(i * sys.hash_info.modulus for i in range(1, 400)),
]
ATTRIBUTES = {f"name{i}": value for i, value in enumerate(VALUES)}
BODY = AttributeMap(ATTRIBUTES).encode()[0]
FIELDS = {"generation": 1, "created_ms": 2, "accessed_ms": 3, "lineage": (4, 5)}
RECORD = encode_record(b"k", BODY, **FIELDS)
SEALED = RecordFormat(secrets=("a secret of some length",), compress_over=100)
SEALED_RECORD = SEALED.encode(b"k", BODY, **FIELDS)
NODES = [f"n{i}" for i in range(100)]
NUMBERS = iter(range(10**9))


def expect(
    errors: type[Exception] | tuple[type[Exception], ...], call: Callable[..., object], *arguments: object
) -> None:
    with contextlib.suppress(errors):
        call(*arguments)
        raise AssertionError(f"{call} took {arguments!r:.100}")


def values_that_come_back() -> None:
    loads(dumps(VALUES))


def values_that_cannot_be_written() -> None:
    for value in UNENCODABLE:
        expect((TypeError, ValueError), dumps, value)


def values_that_are_cut_or_damaged() -> None:
    for at in range(0, len(ENCODED), 23):
        expect(CorruptRecord, loads, ENCODED[:at])
        with contextlib.suppress(CorruptRecord):
            loads(ENCODED[:at] + b"\xff" + ENCODED[at + 1 :])


def maps_that_are_read_changed_and_saved() -> None:
    back = AttributeMap.decode(BODY)
    back["name9"].append(1)
    back["new"] = "value"
    del back["name0"]
    body, _ = back.encode()
    back.mark_saved(body)
    back["mine"] = 1
    back.rebase(BODY)
    value_sizes(body)
    list(back.items())
    back.copy().clear()


def maps_whose_values_are_trapped() -> None:
    attributes = AttributeMap(ATTRIBUTES)
    for i, value in enumerate(UNENCODABLE):
        attributes[f"odd{i}"] = value
    _, failures = attributes.encode()
    assert len(failures) == len(UNENCODABLE)
    attributes.encode(nulls={})


def maps_whose_frames_are_cut_or_damaged() -> None:
    for at in range(0, len(BODY), 61):
        with contextlib.suppress(CorruptRecord):
            AttributeMap.decode(BODY[:at])
        with contextlib.suppress(CorruptRecord):
            list(AttributeMap.decode(BODY[:at] + b"\xc1" + BODY[at + 1 :]).items())


def records_good_and_bad() -> None:
    encode_record(b"k", BODY, **FIELDS)
    decode_record(RECORD, b"k")
    SEALED.encode(b"k", BODY, **FIELDS)
    SEALED.decode(SEALED_RECORD, b"k")
    expect(CorruptRecord, partial(encode_record, **FIELDS), b"k", b"no frames")
    for data in (RECORD, SEALED_RECORD):
        for at in (0, 4, 5, 40, 44, 90, len(data) - 1):
            broken = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
            expect(CorruptRecord, decode_record, broken, b"k")
            expect(CorruptRecord, SEALED.decode, broken, b"k")


def ids_good_and_bad() -> None:
    session_id = SessionId.generate("n1", "w1")
    SessionId.parse(str(session_id.with_node("n2").with_route(None)))
    for text in ("", "foo-", "é" * 300, "a" * 300, b"foo", None):
        SessionId.parse(text)
        expect(InvalidSessionId, SessionId, text)
    expect(InvalidSessionId, session_id.with_node, "n-1")


def placements_good_and_bad() -> None:
    for nodes in (RendezvousHash(NODES), RendezvousHash(dict(zip(NODES, range(1, 101), strict=True)))):
        nodes.ranked("key")
        nodes.ranked(b"key", 3)
        nodes.nodes_for(["a", b"b"])
        expect(UnicodeEncodeError, nodes.ranked, "\ud800")
        expect(TypeError, nodes.nodes_for, ["a", None])
    expect(ValueError, RendezvousHash, {"a": 1, "b": -1})


def caches_that_evict_expire_and_die() -> None:
    cache = NearCache(20, max_bytes=100, clock=NUMBERS.__next__)
    for i in range(60):
        cache.put(i % 23, [i], i % 9, ttl=i % 5 * 10.0)
        cache.get((i * 7) % 23)
        cache.pop((i * 5) % 23)
    expect(TypeError, cache.get, [])
    expect(ValueError, cache.put, "a", 1, -1)
    cache.put("itself", cache)  # a cycle, for the collector


COMMANDS = [wire.get(b"k"), wire.store(b"k", b"value" * 50, 1, 60), wire.version(), wire.delete(b"k", 5)]
REPLIES = b"VA 300 c1 f2 t3 O1\r\n" + b"v" * 300 + b"\r\nHD c5 O2\r\nVERSION 1.6.18\r\nSERVER_ERROR no\r\n"


def replies_good_and_bad() -> None:
    wire.encode([wire.get(b"k"), wire.store(b"k", b"v" * 100, 1, 60, 5), wire.noop()], 1)
    ReplyParser(COMMANDS, 1).feed(REPLIES)
    for at in range(1, len(REPLIES), 13):
        parser = ReplyParser(COMMANDS, 1)
        parser.feed(REPLIES[:at])  # and dropped where it stands, perhaps within a value
        expect(ProtocolError, parser.feed, b"\n" * 1000)
        expect(ProtocolError, parser.feed, b"")
    for key in (b"", b"a b", b"k" * 251):
        expect(ValueError, wire.get, key)


def requests_that_go_the_usual_way_and_that_do_not() -> None:
    driver = SimulatedDriver(["n1", "n2"], VirtualClock())
    one, two = (Worker(driver, make_settings(2), seed) for seed in (1, 2))
    session_id = one.store(user="ada", cart=["apple"])
    for n in range(3):
        session = one.load(session_id)
        assert session is not None
        session["cart"].append(n)
        one.save(session)
        one.save(session)
    behind, ahead = one.load(session_id), two.load(session_id)
    assert behind is not None
    assert ahead is not None
    behind["mine"], ahead["theirs"] = 1, 1
    two.save(ahead)
    assert one.save(behind).status == "merged"
    for text in (None, "", "no id", "a" * 32 + "-n9"):
        one.ctx.usual_loading.ask_for(text, True)
    behind.rotate_id()
    one.save(behind)
    expect(KeyError, one.ctx.counters.add, "nothing")
    expect(TypeError, one.ctx.storage_key, None)
    assert one.load(session_id) is None


ROUNDS: list[Callable[[], None]] = [
    values_that_come_back,
    values_that_cannot_be_written,
    values_that_are_cut_or_damaged,
    maps_that_are_read_changed_and_saved,
    maps_whose_values_are_trapped,
    maps_whose_frames_are_cut_or_damaged,
    records_good_and_bad,
    ids_good_and_bad,
    placements_good_and_bad,
    caches_that_evict_expire_and_die,
    replies_good_and_bad,
    requests_that_go_the_usual_way_and_that_do_not,
]


def resident_kb() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024


def main(n_rounds: int) -> None:
    before = 0
    for i in range(2 * n_rounds):
        if i == n_rounds:  # the first half has filled every cache and free list
            before = resident_kb()
        for work in ROUNDS:
            work()
    print(resident_kb() - before)


if __name__ == "__main__":
    main(int(sys.argv[1]))
