"""How large a session may be: as much as every node takes."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["ItemLimits"]

_DEFAULT_ITEM_BYTES = 1 << 20
_LEAST_ITEM_BYTES = 1 << 10
"""memcached does not start with less; a server that claims to is not believed."""
_ROOM = 512
"""For the item's header, its suffix and a key of 250 bytes; 313 were needed at most. The limit is on all together."""


class ItemLimits:
    """How large a record may be. A larger one is refused before it is sent: the server would delete the old value.

    A node tells its own limit when a connection to it is made. memcached's default of 1 MiB is never exceeded: a node
    that nobody has met yet may have no more.
    Thread-safety: each change is one assignment.
    """

    def __init__(self) -> None:
        self._items: dict[str, int] = {}
        self.least_record_bytes = _DEFAULT_ITEM_BYTES - _ROOM
        """What every node takes that was ever met."""

    def learn(self, node: str, item_bytes: int) -> None:
        """Note how large an item the node takes, header and key included."""
        if item_bytes >= _LEAST_ITEM_BYTES:
            self._items[node] = item_bytes
            self.least_record_bytes = min(self.least_record_bytes, item_bytes - _ROOM)

    def record_bytes(self, nodes: Iterable[str]) -> int:
        """Return how many bytes a record on any of these nodes may have."""
        limits = [self._items[node] for node in nodes if node in self._items]
        return min([_DEFAULT_ITEM_BYTES, *limits]) - _ROOM
