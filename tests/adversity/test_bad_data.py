"""Items and cookies that are not what this library made.

Rows 19, 46, 47 and 48 of the fault matrix, under on_corrupt="error".
"""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import pytest

from msm_fast import CorruptRecord, Event, SessionId, SessionManager, UnknownFormat
from tests.adversity.conftest import FORGETFUL, Cluster, home_of, key_of
from tests.adversity.items import Tamper, item_of, tamper
from tests.adversity.proxy import Faults, flip_bit, has_value
from tests.adversity.visitor import Visitor

pytestmark = pytest.mark.memcached


def new_visitor(cluster: Cluster, worker: SessionManager) -> Visitor:
    return cluster.visitor_at_home_on("n1", worker, user="ada", cart=["apple"] * 5)


CONTENT = {"user": "ada", "cart": ["apple"] * 5}


def test_row_19_the_record_of_another_session_is_never_served(cluster: Cluster) -> None:
    worker = cluster.worker()
    ada, eve = new_visitor(cluster, worker), cluster.visitor_at_home_on("n1", worker, user="eve")
    tamper(cluster, ada.cookie, lambda item: item_of(cluster, eve.cookie), "n1")
    assert ada.get() == CONTENT
    assert worker.statistics().corrupt == 1
    tamper(cluster, ada.cookie, lambda item: item_of(cluster, eve.cookie))
    with pytest.raises(CorruptRecord):
        ada.get()
    assert eve.get() == {"user": "eve"}


def test_row_46_a_bit_that_flips_anywhere_is_noticed_and_the_backup_serves(cluster: Cluster) -> None:
    worker = cluster.worker(near_cache=FORGETFUL)
    size = len(item_of(cluster, new_visitor(cluster, worker).cookie))
    into_a_tombstone = (5, 0)
    for at, bit in [*((at, at % 8) for at in range(size)), into_a_tombstone]:
        visitor = new_visitor(cluster, worker)
        cluster.proxies["n1"].replies = Faults(only=has_value, edit=flip_bit(at, bit))
        assert visitor.get() == CONTENT, at
        cluster.proxies["n1"].replies = Faults()
    others = 4  # of the four bytes for version, flags and key id: another format, which is no corruption
    assert worker.statistics().corrupt == size - others + 1
    assert worker.statistics().node_failures == 0


TAMPERED: dict[str, Tamper] = {
    "truncated_by_one": lambda item: item[:-1],
    "truncated_to_half": lambda item: item[: len(item) // 2],
    "truncated_to_a_byte": lambda item: item[:1],
    "empty": lambda item: b"",
    "one_byte_more": lambda item: item + b"\0",
    "zeros": lambda item: bytes(len(item)),
    "noise": lambda item: bytes(range(256)) * 4,
    "text": lambda item: b'{"user": "eve"}',
}


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_row_46_what_is_no_record_is_told_and_left_and_the_backup_serves(cluster: Cluster, change: Tamper) -> None:
    worker = cluster.worker()
    events: list[Event] = []
    worker.subscribe(events.append)
    visitor = new_visitor(cluster, worker)
    tamper(cluster, visitor.cookie, change, "n1")
    assert visitor.get() == CONTENT
    assert home_of(visitor.cookie) == "n1"
    assert [event.node for event in events if event.kind == "corrupt"] == ["n1"]
    assert all(key_of(visitor.cookie) not in event.detail for event in events)
    assert visitor.post(seen=True).status in ("stored", "unchanged")
    visitor.worker = cluster.worker()
    assert visitor.get() == {**CONTENT, "seen": True}
    assert visitor.worker.statistics().corrupt == 0  # the backup's copy was put in its place


@pytest.mark.parametrize("change", TAMPERED.values(), ids=TAMPERED.keys())
def test_row_46_with_no_readable_copy_the_request_fails_and_the_items_are_left(
    cluster: Cluster, change: Tamper
) -> None:
    worker = cluster.worker()
    visitor = new_visitor(cluster, worker)
    tamper(cluster, visitor.cookie, change)
    left = item_of(cluster, visitor.cookie)
    cookie = visitor.cookie
    with pytest.raises(CorruptRecord):
        visitor.get()
    assert visitor.cookie == cookie
    assert item_of(cluster, cookie) == left


def test_row_46_a_record_of_a_later_format_is_left_alone(cluster: Cluster) -> None:
    worker = cluster.worker()
    visitor = new_visitor(cluster, worker)

    def later(item: bytes) -> bytes:
        return item[:4] + bytes([item[4] + 1]) + item[5:]

    before = item_of(cluster, visitor.cookie)
    tamper(cluster, visitor.cookie, later)
    with pytest.raises(UnknownFormat):
        visitor.post(user="eve")
    assert item_of(cluster, visitor.cookie) == later(before)


class _Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (self._path,))


def test_row_47_a_pickle_in_memcached_is_never_run(cluster: Cluster, tmp_path: Path) -> None:
    worker = cluster.worker()
    visitor = new_visitor(cluster, worker)
    target = tmp_path / "run"
    bomb = pickle.dumps(_Bomb(str(target)))
    inside = item_of(cluster, visitor.cookie)[:40] + struct.pack("<I", len(bomb)) + bomb
    for item in (bomb, inside):
        tamper(cluster, visitor.cookie, lambda _, item=item: item)
        with pytest.raises(CorruptRecord):
            visitor.get()
    assert not target.exists()


COOKIES = {
    "line_breaks": "abc\r\nset x 0 60 1\r\nZ-n1",
    "escaped_line_breaks": "abc\\015\\012-n1",
    "long": "a" * 300 + "-n1",
    "huge": "a" * 10_000_000,
    "empty": "",
    "blank": "a b-n1",
    "control_character": "a\x01-n1",
    "nul": "a\0-n1",
    "not_ascii": "é-n1",
    "lone_surrogate": "\udc80-n1",
    "unknown_node": f"{'0' * 32}-n9",
    "no_node_and_not_ours": "abc",
    "two_nodes": f"{'0' * 32}-n1-n2",
    "bad_route": f"{'0' * 32}-n1.a.b",
}


@pytest.mark.parametrize("cookie", COOKIES.values(), ids=COOKIES.keys())
@pytest.mark.parametrize("is_sticky", [False, True], ids=["non_sticky", "sticky"])
def test_row_48_a_cookie_that_is_no_id_of_ours_costs_no_connection_and_is_not_adopted(
    cluster: Cluster, cookie: str, is_sticky: bool
) -> None:
    worker = cluster.worker(sticky=is_sticky)
    visitor = cluster.visitor(worker)
    visitor.cookie = cookie
    assert visitor.get() == {}
    assert visitor.cookie != cookie
    assert worker.statistics().round_trips == 0
    assert [proxy.n_connections for proxy in cluster.proxies.values()] == [0, 0, 0]


@pytest.mark.parametrize("is_sticky", [False, True], ids=["non_sticky", "sticky"])
def test_row_48_a_chosen_id_is_never_adopted(cluster: Cluster, is_sticky: bool) -> None:
    worker = cluster.worker(sticky=is_sticky, backup="sync")
    visitor = cluster.visitor(worker)
    chosen = visitor.cookie = str(SessionId.generate("n1"))
    visitor.post(user="ada")
    assert key_of(visitor.cookie) != key_of(chosen)
    for node in cluster.servers:
        with cluster.servers[node].client() as client:
            assert client.get(key_of(chosen)) is None


@pytest.mark.parametrize("node", ["n2", "n3"])
def test_row_48_anothers_node_in_an_id_is_a_hint_that_harms_nobody(cluster: Cluster, node: str) -> None:
    worker = cluster.worker()
    visitor = new_visitor(cluster, worker)
    right = visitor.cookie
    visitor.cookie = f"{key_of(right)}-{node}"
    visitor.worker = cluster.worker()
    assert visitor.get() == CONTENT
    assert visitor.post(n=1).status == "stored"
    assert visitor.cookie == right
    visitor.worker = worker
    assert visitor.get() == {**CONTENT, "n": 1}
