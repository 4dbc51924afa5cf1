"""The items of a session on the servers: looked at, taken away and tampered with."""

from __future__ import annotations

from collections.abc import Callable

from tests.adversity.conftest import Cluster, home_of, key_of

Tamper = Callable[[bytes], bytes]


def has_copy(cluster: Cluster, node: str, cookie: str | None) -> bool:
    with cluster.servers[node].client() as client:
        return client.get(key_of(cookie)) is not None


def item_of(cluster: Cluster, cookie: str | None) -> bytes:
    """Return the session's item on its home."""
    with cluster.servers[home_of(cookie)].client() as client:
        item: bytes = client.get(key_of(cookie))
        return item


def delete(cluster: Cluster, node: str, cookie: str | None) -> None:
    """Take the session's item away, as an eviction does."""
    with cluster.servers[node].client() as client:
        client.delete(key_of(cookie))


def flush(cluster: Cluster, node: str) -> None:
    with cluster.servers[node].client() as client:
        client.flush_all()


def tamper(cluster: Cluster, cookie: str | None, change: Tamper, *nodes: str) -> None:
    """Change the session's copy on nodes, or on all that have one."""
    for node in nodes or tuple(cluster.servers):
        with cluster.servers[node].client() as client:
            item = client.get(key_of(cookie))
            if item is not None:
                client.set(key_of(cookie), change(item))
