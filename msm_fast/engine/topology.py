"""Which node a session belongs to, and which others hold its backups."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from functools import lru_cache

from xxhash import xxh32_intdigest

from msm_fast._core.placement import RendezvousHash
from msm_fast._core.session_id import SessionId
from msm_fast.node import Node

__all__ = ["Topology", "home_digest"]


class Topology:
    """The nodes and each session's order of preference among them.

    A session's order is that of its plain id by rendezvous hashing, primaries before failover nodes. It is the same
    in every worker, so two that relocate a session choose the same node.

    draining: ids of nodes that get no session any more; their sessions move at their next request. former: nodes that
    were configured once; an id that names one is looked for on the others.
    Thread-safety: immutable.
    """

    def __init__(
        self,
        nodes: Collection[Node],
        failover_nodes: Collection[str] = (),
        draining: Collection[str] = (),
        former: Collection[Node] = (),
    ) -> None:
        self.nodes = {node.node_id: node for node in nodes}
        self.draining = frozenset(draining) & self.nodes.keys()
        self.former = {node.node_id: node for node in former if node.node_id not in self.nodes}
        self.encodes_node = any(self.nodes)
        """Whether ids carry their node: all do but those of a single node without an id."""
        self.by_digest = {home_digest(node_id): node_id for node_id in {**self.former, **self.nodes}}
        failover = {node.node_id: node.weight for node in nodes if node.node_id in failover_nodes}
        primaries = {node.node_id: node.weight for node in nodes if node.node_id not in failover_nodes}
        self.primaries = frozenset(primaries)
        self._rings = [_ring(primaries), _ring(failover)]
        self.rank_primaries = self._rings[0]
        """Ranks the nodes that are not for failover for a plain id; `ranked` while all are up and none drains."""

    def home(self, node: str | None) -> str | None:
        """Return the id of the node that an id's suffix names, or None if it names none that is or was ours."""
        home = node or ("" if not self.encodes_node else None)
        return home if home in self.nodes or home in self.former else None

    def label(self, node: str) -> str:
        """Return a node's name for messages, with its address."""
        return (self.nodes.get(node) or self.former[node]).label

    def accepts(self, session_id: SessionId) -> bool:
        """Whether a session may have this id: it names one of our nodes, or none."""
        return session_id.node is None or self.home(session_id.node) is not None

    def node_of_digest(self, digest: int) -> str | None:
        """Return the node that a record names as its session's home, or None if it is none of ours."""
        return self.by_digest.get(digest)

    def first(self, plain: str) -> str:
        """Return the node that ranks first for plain, up or not."""
        return self.ranked(plain)[0]

    def ranked(self, plain: str, is_up: Callable[[str], bool] | None = None) -> list[str]:
        """Return the nodes that plain may be stored on and that are up, in order of preference.

        is_up: None: all are. Failover nodes only if no primary is up; draining ones only if nothing else is.
        """
        if is_up is None and not self.draining:
            return self.rank_primaries(plain)
        is_up = is_up or _is_any
        for ring in self._rings:
            up = [node for node in ring(plain) if node not in self.draining and is_up(node)]
            if up:
                return up
        return self.ranked_with_failover(plain, is_up)

    def backups(self, plain: str, home: str, is_up: Callable[[str], bool] | None = None) -> list[str]:
        """Return the nodes other than home that plain's backups may be stored on, in order of preference.

        is_up: as for `ranked`.
        """
        return [node for node in self.ranked(plain, is_up) if node != home]

    def searched(
        self, others: Iterable[str], home: str | None, n_backups: int, away: Collection[str] = ()
    ) -> list[str]:
        """Return those of other nodes than home, in order of preference, of which one has a backup if any has.

        They are one more than there are backups: a node may have been added since. A draining one takes no place of
        another: it may have a backup from before, but gets none; nor does one of those that were, or may have been,
        away. Where home is for failover, backups are on others for failover if no primary was up, else on primaries.
        """
        n_left = [n_backups + 1, n_backups + 1]
        found = []
        for node in others:
            ring = home not in self.primaries and node not in self.primaries
            if n_left[ring]:
                found.append(node)
                n_left[ring] -= node not in self.draining and node not in away
        return found

    def ranked_with_failover(self, plain: str, is_up: Callable[[str], bool] | None = None) -> list[str]:
        """Return all nodes for plain that are up, primaries before failover nodes: wherever a copy may be.

        is_up: None: all are.
        """
        everywhere = self._rings[0](plain) + self._rings[1](plain)
        return everywhere if is_up is None else [node for node in everywhere if is_up(node)]


@lru_cache(maxsize=1024)
def home_digest(node_id: str) -> int:
    """Return the 32 bits by which a record names its session's home. Source: XXH32."""
    return xxh32_intdigest(node_id.encode())


def _is_any(node: str) -> bool:
    return True


def _ring(weights: dict[str, float]) -> Callable[[str], list[str]]:
    """Return a function that ranks the nodes for a plain id."""
    if len(weights) > 1:
        return RendezvousHash(weights).ranked
    alone = list(weights)
    return lambda plain: alone.copy()
