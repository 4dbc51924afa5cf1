"""Encrypted, compressed and hashed sessions on real memcached processes."""

from collections.abc import Callable
from typing import Any

import pytest

from msm_fast import SessionId, SessionManager
from tests.integration.conftest import Nodes

pytestmark = pytest.mark.memcached

MakeManager = Callable[..., SessionManager]
SETTINGS: dict[str, Any] = {
    "secrets": "an integration secret of some length",
    "encrypt": True,
    "compress_over": 100,
    "hash_ids": True,
}


@pytest.mark.parametrize(
    "settings",
    [{}, {"locking": "all"}, {"sticky": True, "backup": "sync"}, {"compression": "zstd"}],
    ids=["merged", "locked", "sticky", "zstd"],
)
def test_a_session_lives_as_any_other_and_its_servers_see_neither_id_nor_content(
    nodes: Nodes, make_manager: MakeManager, settings: dict[str, Any]
) -> None:
    one, two = make_manager(**SETTINGS, **settings), make_manager(**SETTINGS, **settings)
    with one.request(None, method="POST", uri="/cart") as session:
        session["note"] = "all work and no play " * 50
    cookie = session.id
    with two.request(cookie, method="POST", uri="/cart") as session:
        session["cart"] = ["apple"]
    with two.request(session.id, method="GET", uri="/cart") as session:
        assert dict(session) == {"note": "all work and no play " * 50, "cart": ["apple"]}
    items = [item for server in nodes.values() for item in items_of(server, two, session.id)]
    assert len(items) == 2
    assert len(set(items)) == 1
    assert len(items[0]) < 300
    assert b"apple" not in items[0]
    with two.request(session.id, method="POST", uri="/logout") as session:
        session.invalidate()
    assert make_manager(**SETTINGS).load(cookie) is None


def items_of(server: Any, manager: SessionManager, cookie: str) -> list[bytes]:
    session_id = SessionId.parse(cookie)
    assert session_id is not None
    with server.client() as client:
        assert client.get(session_id.plain) is None
        item = client.get(manager._ctx.storage_key(session_id))
        return [] if item is None else [item]
