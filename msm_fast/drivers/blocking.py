"""Carries flows out over blocking sockets, for threads and for gevent."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar, cast

from msm_fast.drivers.access import OPEN_ACCESS, Access, Credentials
from msm_fast.drivers.addresses import AddressBook
from msm_fast.drivers.connection import Connection, finish
from msm_fast.drivers.failures import GONE, OUT_OF_TIME, RESTARTED, ConnectionFailed, cannot_find
from msm_fast.drivers.greeting import Greeting, greet
from msm_fast.drivers.idle_connections import IdleConnections
from msm_fast.drivers.node_lives import NodeLives
from msm_fast.engine.effects import Batch, Budget, Exchange, FailureKind, Flow, NodeFailure, Outcome, Sleep, carry_out
from msm_fast.node import Node
from msm_fast.policies import Timeouts

__all__ = ["BlockingDriver"]

T = TypeVar("T")

_MOST_IDLE = 64
"""Idle connections kept per node; as many threads may talk to it at once without connecting anew."""
_NO_MORE: frozenset[FailureKind] = frozenset({"refused", "reset", "exhausted"})
"""What a further connection may meet though those that there are work: memcached's limit (-c), or a limit here."""
_FULL_S = 1.0
"""A node that took no further connection is asked for none for so long."""
_LEAST_TURN_S = 0.01
"""For how long an answer is waited for, at least. Where other threads compute, each wait may take a thread a tenth of a
second, until it has the GIL again: its time may be over then, though a node needs a thousandth of that."""
_LOOKS_S = (0.001, 0.02)
"""After how long who waits for a connection first looks again whether one is idle, and how long that becomes."""


class BlockingDriver:
    """Runs flows; keeps connections to each node.

    learn_item_limit: called with a node and the size of the largest item that it takes, when a connection is made.
    access: how connections are secured.
    Thread-safety: shared by all threads; each exchange has connections of its own while it lasts.
    """

    def __init__(
        self,
        nodes: Mapping[str, Node],
        timeouts: Timeouts,
        learn_item_limit: Callable[[str, int], None] = lambda node, item_bytes: None,
        access: Access = OPEN_ACCESS,
    ) -> None:
        self._nodes = dict(nodes)
        self._timeouts = timeouts
        self._operation_s = timeouts.operation
        self._least_turn_s = min(_LEAST_TURN_S, timeouts.operation)
        self._learn_item_limit = learn_item_limit
        self._access = access
        self._addresses = AddressBook()
        self.lives = NodeLives()
        self.lives.nodes = self._nodes
        self._idle = IdleConnections(nodes, _MOST_IDLE, self.lives)
        self._made: weakref.WeakSet[Connection] = weakref.WeakSet()
        self._full: dict[str, tuple[ConnectionFailed, float]] = {}  # why a node took no further connection, until when
        self._lock = threading.Lock()
        self._is_closed = False

    def run(self, flow: Flow[T], deadline: float) -> T:
        """Carry out flow's effects until it returns. deadline: of time.monotonic(), for everything together."""
        return carry_out(flow, self._carry_out, _sleep, deadline)

    def run_within(self, flow: Flow[T], budget: Budget) -> T:
        """As run, in what is left of a request's time; for one turn if nothing is left, as in `exchange`."""
        started = time.monotonic()
        try:
            return self.run(flow, started + max(budget.left_s, self._least_turn_s))
        finally:
            budget.left_s -= time.monotonic() - started

    def change_nodes(self, nodes: Mapping[str, Node]) -> None:
        """Talk to these nodes from now on; connections to others, or to other addresses, are closed."""
        with self._lock:
            before = self._nodes
            kept = {name: before[name] for name, node in nodes.items() if before.get(name) == node}
            self._nodes = self.lives.nodes = {**nodes, **kept}
            gone = self._idle.change_nodes(nodes, kept)
        self._addresses.keep_only(nodes.values())
        _close(gone)

    def look_up(self, node: str) -> None:
        """Look up again where a node that is down is, and wait for that no longer than a connection may take.

        Its idle connections are closed: a firewall may have forgotten them, and each would make a probe fail.
        """
        self._drop_idle(node)
        with self._lock:
            configured = self._nodes.get(node)
        if configured is not None:
            self._addresses.refresh(configured, self._timeouts.connect)

    def share_lives(self, lives: NodeLives) -> None:
        """Use the numbers of another driver of this process; before the first connection is made."""
        self.lives = lives
        self._idle = IdleConnections(self._nodes, _MOST_IDLE, lives)

    def close(self) -> None:
        """Close all connections; those in use are closed when they come back."""
        with self._lock:
            self._is_closed = True
            idle = self._idle.change_nodes(self._nodes, ())
        _close(idle)

    def abandon_connections(self) -> None:
        """Forget connections that a forked child shares with its parent, and the lock another thread may have held.

        Those that threads of the parent were using go too, or the child would hold them open for as long as it lives.
        To close one here says nothing to its server.
        """
        self._lock = threading.Lock()
        self.lives.renew_after_fork()
        self._addresses.renew_after_fork()
        _close(list(self._made))
        self._idle.change_nodes(self._nodes, ())

    def exchange(self, batches: Sequence[Batch], budget: Budget) -> list[Outcome]:
        """Write every batch, then wait for every reply: a single round trip, however many nodes.

        It has a turn also if nothing of the budget is left: a request that was held up may store what it has changed.
        """
        started = time.monotonic()
        left_s, operation_s = budget.left_s, self._operation_s
        if left_s < self._least_turn_s:
            left_s = self._least_turn_s
        until = started + (left_s if left_s < operation_s else operation_s)
        outcomes, in_use = self._idle.exchange(batches, until)
        if outcomes is None or in_use is not None:
            outcomes = self._go_on(batches, outcomes, in_use, until, started + left_s)
        budget.left_s -= time.monotonic() - started
        return outcomes

    def _carry_out(self, effect: Exchange, deadline: float) -> list[Outcome]:
        until = min(deadline, time.monotonic() + self._operation_s)
        outcomes, in_use = self._idle.exchange(effect.batches, until)
        if outcomes is None or in_use is not None:
            return self._go_on(effect.batches, outcomes, in_use, until, deadline)
        return outcomes

    def _go_on(
        self,
        batches: Sequence[Batch],
        outcomes: list[Outcome | None] | None,
        in_use: list[Connection] | None,
        until: float,
        deadline: float,
    ) -> list[Outcome]:
        """Do what could not be done over idle connections as they were; outcomes, in_use: as their `exchange` gave."""
        if outcomes is None or in_use is None:
            return self._exchange_one_by_one(batches, deadline)
        return self._finish(batches, outcomes, dict(enumerate(in_use)), until, deadline)

    def _exchange_one_by_one(self, batches: Sequence[Batch], deadline: float) -> list[Outcome]:
        """Do all of it where a connection must be made first, or is none for the `exchange` of those that are idle."""
        in_use: dict[int, Connection] = {}
        outcomes: list[Outcome | None] = [None] * len(batches)
        least_s = self._least_turn_s if time.monotonic() < deadline else 0.0
        try:
            # In one order of all threads: where connections are shared, none waits for one with what another waits for.
            for i, batch in sorted(enumerate(batches), key=lambda numbered: numbered[1].node):
                try:
                    connection = self._acquire(batch.node, deadline)
                    if batch.life not in (None, connection.life):
                        self._release(batch.node, connection)
                        outcomes[i] = RESTARTED
                        continue
                    in_use[i] = connection
                    connection.start(batch.commands)
                except ConnectionFailed as failure:
                    outcomes[i] = self._fail(batch, in_use.pop(i, None), failure, deadline)
        except BaseException:
            _close(in_use.values())
            raise
        now = time.monotonic()
        until = max(min(deadline, now + self._operation_s), now + least_s)
        return self._finish(batches, outcomes, in_use, until, deadline)

    def _finish(
        self,
        batches: Sequence[Batch],
        outcomes: Sequence[Outcome | None],
        in_use: dict[int, Connection],
        until: float,
        deadline: float,
    ) -> list[Outcome]:
        """Wait for the replies that outcomes do not have yet. in_use: the connections on which they come, by index."""
        complete = list(outcomes)
        waiting = {connection: i for i, connection in in_use.items() if outcomes[i] is None}
        try:
            for i in [i for i in in_use if outcomes[i] is not None]:
                self._release(batches[i].node, in_use.pop(i))
            for connection, answer in finish(waiting, until):
                i = waiting[connection]
                if isinstance(answer, ConnectionFailed):
                    complete[i] = self._fail(batches[i], connection, answer, deadline)
                    del in_use[i]
                else:
                    complete[i] = answer
                    self._release(batches[i].node, in_use.pop(i))
        finally:
            _close(in_use.values())  # only after an exception of any kind is something left; replies may still come
        return cast("list[Outcome]", complete)

    def _acquire(self, node: str, deadline: float) -> Connection:
        while True:
            with self._lock:
                configured = self._nodes.get(node)
                connection = self._idle.pop(node)
            if configured is None:
                raise ConnectionFailed(GONE.kind, GONE.sent, GONE.detail)
            if connection is None:
                return self._connect_or_share(configured, deadline)
            try:
                is_stale = connection.is_stale()
            except BaseException:
                connection.close()
                raise
            if not is_stale:
                return connection
            connection.close()

    def _connect_or_share(self, node: Node, deadline: float) -> Connection:
        """Make a connection, or where no more can be had wait for one that another thread uses."""
        refusal, until = self._full.get(node.node_id, (None, 0.0))
        if refusal is None or time.monotonic() >= until or not self._has_connection(node):
            try:
                return self._connect(node, deadline)
            except ConnectionFailed as failure:
                if failure.kind not in _NO_MORE:
                    raise
                refusal = failure
                self._full[node.node_id] = refusal, time.monotonic() + _FULL_S
        return self._share(node, deadline, refusal)

    def _share(self, node: Node, deadline: float, refusal: ConnectionFailed) -> Connection:
        """Wait for a connection that another thread uses: while those work the node is not down, but full.

        Raises: ConnectionFailed; as refusal says, if there is none.
        """
        until = min(deadline, time.monotonic() + self._timeouts.connect)
        pause_s, longest_s = _LOOKS_S
        while self._has_connection(node):
            connection: Connection | None = self._idle.pop(node.node_id)
            if connection is not None:
                return connection
            if time.monotonic() >= until:
                detail = f"{refusal.detail}; and none that this process has came free in time"
                raise ConnectionFailed("exhausted", False, detail)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, longest_s)
        raise ConnectionFailed(refusal.kind, refusal.sent, refusal.detail)

    def _has_connection(self, node: Node) -> bool:
        with self._lock:
            return any(connection.node is node and connection.is_open for connection in self._made)

    def _connect(self, node: Node, deadline: float) -> Connection:
        """Make a connection, and note what the node says of itself."""
        connection = self._dial(node, min(deadline, time.monotonic() + self._timeouts.connect))
        with self._lock:
            self._made.add(connection)
        try:
            until = min(deadline, time.monotonic() + self._timeouts.connect)
            greeting = _greet(connection, until, self._least_turn_s, self._access.credentials)
            connection.set_waiting(self._operation_s, self._timeouts.busy_poll)
        except BaseException as error:
            connection.close()
            if isinstance(error, ConnectionFailed) and connection.address is not None:
                self._addresses.note_failure(node, connection.address)
            raise
        if greeting.item_limit is not None:
            self._learn_item_limit(node.node_id, greeting.item_limit)
        connection.life, connection.compares = self.lives.number(node.node_id, greeting.token), greeting.compares
        return connection

    def _dial(self, node: Node, deadline: float) -> Connection:
        """Connect to the first of the node's addresses that takes it; each has a fair share of what time is left."""
        if node.is_unix:
            return Connection.open(node, None, _time_left(deadline), self._access)
        try:
            addresses = self._addresses.of(node, _time_left(deadline))
        except TimeoutError as error:
            raise ConnectionFailed("timeout", False, str(error)) from None
        except OSError as error:
            raise cannot_find(node.host, error) from error
        failure: ConnectionFailed | None = None
        for i, address in enumerate(addresses):
            if failure is not None and time.monotonic() >= deadline:
                break
            try:
                share_s = _time_left(deadline) / (len(addresses) - i)
                return Connection.open(node, address, share_s, self._access)
            except ConnectionFailed as error:
                failure = failure if failure is not None and error.kind == "exhausted" else error
                self._addresses.note_failure(node, address)
        assert failure is not None
        raise failure

    def _release(self, node: str, connection: Connection) -> None:
        with self._lock:
            is_current = self._nodes.get(node) is connection.node and self.lives.is_current(node, connection.life)
            if is_current and not self._is_closed and self._idle.put(node, connection):
                return
        connection.close()

    def _fail(
        self, batch: Batch, connection: Connection | None, failure: ConnectionFailed, deadline: float
    ) -> NodeFailure:
        """Close what failed, and say whether the node or the request's own deadline was at fault."""
        if connection is not None:
            connection.close()
        if failure.kind == "timeout" and time.monotonic() >= deadline:
            return NodeFailure("deadline", failure.sent, OUT_OF_TIME)
        if failure.kind == "reset":
            self._drop_idle(batch.node)
        return failure.outcome

    def _drop_idle(self, node: str) -> None:
        """Close the node's idle connections: what broke one has most likely broken all."""
        _close(self._idle.take_all(node))


def _close(connections: Iterable[Connection]) -> None:
    for connection in connections:
        connection.close()


def _sleep(effect: Sleep, deadline: float) -> bool:
    time.sleep(max(min(effect.seconds, deadline - time.monotonic()), 0))
    return time.monotonic() < deadline


def _greet(connection: Connection, deadline: float, least_s: float, credentials: Credentials | None) -> Greeting:
    """Carry the greeting out; each answer is waited for least_s at least. Raises: as greet()."""
    dialogue = greet(credentials, is_secure=connection.is_secure)
    said = next(dialogue)
    try:
        while True:
            try:
                if said:
                    connection.write(said)
                    deadline = max(deadline, time.monotonic() + least_s)
                heard = connection.read(deadline)
            except ConnectionFailed as failure:
                said = dialogue.throw(failure)
            else:
                said = dialogue.send(heard)
    except StopIteration as stop:
        greeting: Greeting = stop.value
        return greeting


def _time_left(deadline: float) -> float:
    """Return the seconds until then, as a timeout: never 0, which would mean not to wait at all."""
    return max(deadline - time.monotonic(), 0.001)
