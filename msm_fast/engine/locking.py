"""Pessimistic locks: one request at a time works on a session.

A lock is an item on the session's home whose value is its owner's random token. It is added in the round trip that
loads the session, before that is read, and deleted, by its CAS value, in the one that stores it. Who does not get it
waits, loads again and only then has the session. A lock dies with its node, by its lifetime, or for want of memory, so
it keeps requests apart but is not what keeps data safe: every save is still compare-and-swap, and merges with what it
did not expect.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from msm_fast._core import wire
from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import Context, digest
from msm_fast.engine.effects import Batch, Flow, NodeFailure, Sleep
from msm_fast.engine.exchanging import exchange
from msm_fast.engine.riding import Answer, ride
from msm_fast.engine.serving import find, store
from msm_fast.engine.versions import cas_of, life_of, version
from msm_fast.errors import LockTimeout, MsmError
from msm_fast.policies import SaveResult
from msm_fast.session import UNKNOWN, SessionState

__all__ = ["LOCK_PREFIX", "SessionLock", "find_locked", "new_lock", "release", "renew", "store_locked", "wait_for_lock"]

LOCK_PREFIX = b"msm:lock:"
"""Before the session's key. No session's own key begins so: settings.key_prefix must not."""

_TOKEN_BITS = 128
_FIRST_WAIT_S = 0.005
_LONGEST_WAIT_S = 0.1
_MOVES = 3
"""How often one request follows a session that moves to another node while it asks for its lock."""
_TRIES = 3
"""Enough to be told that the CAS value is another, to look, and to try again."""


@dataclass(eq=False)
class SessionLock:
    """One request's lock, or its wish for one. Where local variables are shown, its session's id is not.

    Thread-safety: one request's own, but that a `renew` may run beside it; each change is one assignment.
    """

    token: bytes = field(repr=False)
    key: bytes = field(default=b"", repr=False)
    session_key: bytes = field(default=b"", repr=False)
    session: str = ""
    """The digest of the session's id."""
    node: str | None = None
    """Where it is, or is wanted."""
    is_held: bool = False
    is_wanted: bool = False
    """Somebody else had it when the session was asked for: to be waited for."""
    is_refused: bool = False
    """Its node stores none: the request goes on without."""
    wait_until: float = 0.0
    """How long it may be waited for, monotonic seconds; 0: it was not waited for yet."""
    renewed_at: float = 0.0
    items: dict[str, int] = field(default_factory=dict)
    """Per node the version of an item with this token, UNKNOWN where there may be one."""


def new_lock(ctx: Context) -> SessionLock:
    """Return a lock that is not yet asked for."""
    return SessionLock(token=b"%032x" % ctx.rng.getrandbits(_TOKEN_BITS))


# -- getting it


def find_locked(
    ctx: Context, session_id: SessionId, expect_write: bool, lock: SessionLock
) -> Flow[SessionState | None]:
    """Return the session with lock held, or None if there is none; see `find`.

    If somebody else holds it, lock.is_wanted is set and the result is None: carry out `wait_for_lock`, which has time
    of its own, and call again. A session that is kept on this host has no lock, nor one whose home stores none.
    """
    for _ in range(_MOVES):
        lock.is_wanted = False
        if not lock.is_held:
            _aim(ctx, lock, session_id)
        flow = find(ctx, session_id, expect_write)
        try:
            state = yield from flow if lock.is_held or lock.node is None else _add_along(ctx, lock, flow)
        except MsmError:
            yield from release(ctx, lock)
            raise
        if state is None or state.local_kind is not None or lock.node is None:
            yield from release(ctx, lock)
            return state
        place = _place(ctx, state)
        if lock.node == place:
            break
        yield from release(ctx, lock)  # the session has moved, and so have those who want its lock
        session_id = state.session_id.with_node(place or None)
    if lock.is_held or lock.is_refused:
        return state
    lock.is_wanted = True
    lock.wait_until = lock.wait_until or ctx.clock.monotonic() + ctx.settings.timeouts.lock
    return None


def wait_for_lock(ctx: Context, lock: SessionLock) -> Flow[None]:
    """Wait until lock is held, or its node is lost or stores none.

    Deadline: lock.wait_until. The holder may have let it go, its lifetime may be over, or it may be ours, if only the
    answer was lost. Waits are random, up to 5 ms at first and 100 ms in the end, so that waiters do not ask in step.
    Raises: LockTimeout.
    """
    assert lock.node is not None
    node = lock.node
    ctx.counters.add("lock_waits")
    for attempt in itertools.count():
        left_s = lock.wait_until - ctx.clock.monotonic()
        if left_s <= 0:
            ctx.counters.add("lock_timeouts")
            raise LockTimeout(
                f"session {lock.session} was locked by other requests for {ctx.settings.timeouts.lock:g} seconds; see "
                "which requests take so long, or raise timeouts.lock",
                session=lock.session,
            )
        yield Sleep(min(ctx.rng.random() * min(_FIRST_WAIT_S * 2 ** min(attempt, 10), _LONGEST_WAIT_S), left_s))
        lock.items[node] = UNKNOWN  # should the request be broken off now
        (outcome,) = yield from exchange(ctx, [Batch(node, [_add(ctx, lock), wire.get(lock.key)])])
        if isinstance(outcome, NodeFailure):
            _take_add(ctx, lock, outcome)
            if not (ctx.health.is_up(node) and ctx.distribution.is_on):
                return
            continue
        _take_add(ctx, lock, (outcome[0], outcome.life))
        if not lock.is_held:
            _take_look(lock, node, (outcome[1], outcome.life))
            if node in lock.items:
                _hold(ctx, lock, lock.items[node])
        if lock.is_held or lock.is_refused:
            return


def _aim(ctx: Context, lock: SessionLock, session_id: SessionId) -> None:
    """Want the lock on the session's home, or where all requests will look for the session while that is down."""
    lock.session = digest(session_id)
    lock.session_key = ctx.storage_key(session_id)
    lock.key = LOCK_PREFIX + lock.session_key
    home = ctx.topology.home(session_id.node)
    if home is None and session_id.node is None:
        home = ctx.topology.first(session_id.plain)
    if home is not None and not ctx.health.is_up(home):
        home = next(iter(ctx.topology.ranked(session_id.plain, ctx.health.is_up)), None)
    lock.node = home if ctx.distribution.is_on else None
    lock.is_refused = False


def _place(ctx: Context, state: SessionState) -> str | None:
    """Return the node where all requests of the session have its lock, whatever id they came with."""
    return state.moved_from if _is_leaving(ctx, state) else ctx.topology.home(state.session_id.node)


def _is_leaving(ctx: Context, state: SessionState) -> bool:
    """Whether the session leaves a node that drains when this request stores it.

    Until then its lock is there: other workers may not have been told yet that the node drains.
    """
    node = state.moved_from
    return node is not None and node in ctx.topology.draining and ctx.health.is_steady(node)


def _add(ctx: Context, lock: SessionLock) -> wire.Command:
    return wire.store(lock.key, lock.token, ctx.nonce(), _exptime(ctx), add=True)


def _exptime(ctx: Context) -> int:
    return ctx.exptime(ctx.ttl_s(math.ceil(ctx.settings.timeouts.lock_ttl)))


def _add_along(ctx: Context, lock: SessionLock, flow: Flow[SessionState | None]) -> Flow[SessionState | None]:
    """Add the lock in the round trip in which its node is first asked for the session, before that is read."""
    return ride(
        flow,
        lambda batch: batch.node == lock.node and batch.commands[0].key == lock.session_key,
        _add(ctx, lock),
        lambda answer: _take_add(ctx, lock, answer),
        goes_first=True,
    )


def _take_add(ctx: Context, lock: SessionLock, answer: Answer) -> None:
    assert lock.node is not None
    if isinstance(answer, NodeFailure):
        if answer.sent:
            lock.items[lock.node] = UNKNOWN
        return
    reply, life = answer
    if reply.status == "HD":
        _hold(ctx, lock, version(life, reply.cas))
    elif reply.status == "SERVER_ERROR":
        _do_without(ctx, lock, reply.text)


def _do_without(ctx: Context, lock: SessionLock, reason: str) -> None:
    """Have no lock: there is no memory for one, so that whoever waited would wait in vain.

    Another request's is gone, too: a server that has no memory for what is added deletes what it has (memcached -M). To
    look before would cost each request a round trip.
    """
    lock.is_refused = True
    assert lock.node is not None
    ctx.tell_seldom(
        "refused",
        f"node {ctx.label(lock.node)} cannot store a lock ({reason}): requests of its sessions go on without, and are "
        "merged. Is it full?",
        node=lock.node,
    )


def _hold(ctx: Context, lock: SessionLock, found: int) -> None:
    assert lock.node is not None
    lock.items[lock.node] = found
    lock.renewed_at = ctx.clock.monotonic()
    lock.is_held = True
    ctx.counters.add("locks")


# -- keeping it


def renew(ctx: Context, lock: SessionLock) -> Flow[None]:
    """Begin a held lock's lifetime anew; note it if it was lost: with its node's memory, or as we were too late."""
    node = lock.node
    assert node is not None
    for _ in range(_TRIES):
        if not lock.is_held:
            return
        if not ctx.health.is_up(node):
            break
        known = lock.items.get(node, UNKNOWN)
        if known == UNKNOWN:
            if not (yield from _look(ctx, lock, node)):
                break
            if node not in lock.items:
                _lose(ctx, lock)
            continue
        command = wire.store(lock.key, lock.token, ctx.nonce(), _exptime(ctx), cas=cas_of(known))
        asked_at = ctx.clock.monotonic()
        (outcome,) = yield from exchange(ctx, [Batch(node, [command], life_of(known))])
        if not isinstance(outcome, NodeFailure) and outcome[0].status == "HD":
            lock.items[node] = version(outcome.life, outcome[0].cas)
            lock.renewed_at = asked_at
            return
        lock.items[node] = UNKNOWN
    if ctx.clock.monotonic() >= lock.renewed_at + ctx.settings.timeouts.lock_ttl:
        _lose(ctx, lock)


def _lose(ctx: Context, lock: SessionLock) -> None:
    if not lock.is_held:
        return  # it was released meanwhile
    lock.is_held = False
    ctx.counters.add("locks_lost")
    ctx.tell(
        "lock_lost",
        f"the lock of session {lock.session} was lost: its node was restarted, or is full, or could not be told in "
        "time that it is still needed; what this request stores is merged with what others do",
        node=lock.node,
        session=lock.session,
    )


def _look(ctx: Context, lock: SessionLock, node: str) -> Flow[bool]:
    """Find out whether the item on node is ours, and its version; return whether the node has answered."""
    (outcome,) = yield from exchange(ctx, [Batch(node, [wire.get(lock.key)])])
    if isinstance(outcome, NodeFailure):
        return False
    _take_look(lock, node, (outcome[0], outcome.life))
    return True


def _take_look(lock: SessionLock, node: str, answer: Answer) -> None:
    assert not isinstance(answer, NodeFailure)
    reply, life = answer
    if reply.value == lock.token:
        lock.items[node] = version(life, reply.cas)
    elif reply.status in ("VA", "EN"):
        lock.items.pop(node, None)


# -- letting it go


def store_locked(ctx: Context, state: SessionState, lock: SessionLock) -> Flow[SaveResult]:
    """Store what a request changed, then let its lock go, in one round trip if all is as expected; see `store`.

    When another request, one without a lock, has stored the session meanwhile, the lock is gone before the two are
    merged: rather that than one round trip more for each request.
    """
    rides = lock.is_held and not _is_leaving(ctx, state)  # its new home may be written after the lock's node
    held = lock.items.get(lock.node or "", UNKNOWN) if rides else UNKNOWN
    flow = store(ctx, state)
    if held != UNKNOWN:
        flow = _remove_along(ctx, lock, held, flow)
    result = yield from flow
    yield from release(ctx, lock)
    return result


def _remove_along(ctx: Context, lock: SessionLock, held: int, flow: Flow[SaveResult]) -> Flow[SaveResult]:
    """Delete the lock in the round trip in which its node is given the session, after that was written."""

    def wanted(batch: Batch) -> bool:
        first = batch.commands[0]
        is_write = batch.node == lock.node and first.verb == "ms" and first.key == lock.session_key
        if is_write and batch.life == life_of(held):
            lock.is_held = False  # a renewal that fails from now on has not lost it
            return True
        return False

    return ride(
        flow,
        wanted,
        wire.delete(lock.key, cas_of(held)),
        lambda answer: _take_removal(lock, lock.node or "", answer),
        goes_first=False,
    )


def release(ctx: Context, lock: SessionLock) -> Flow[None]:
    """Let the lock go wherever it is ours; a node that cannot be asked keeps its item in lock.items, for later."""
    lock.is_held = lock.is_wanted = False
    for node in list(lock.items):
        for _ in range(_TRIES):
            known = lock.items.get(node)  # which a renewal, in another thread, may take out
            if known is None or not ctx.health.is_steady(node):
                break
            if known == UNKNOWN:
                yield from _look(ctx, lock, node)
                continue
            batch = Batch(node, [wire.delete(lock.key, cas_of(known))], life_of(known))
            (outcome,) = yield from exchange(ctx, [batch])
            answer = outcome if isinstance(outcome, NodeFailure) else (outcome[0], outcome.life)
            _take_removal(lock, node, answer)


def _take_removal(lock: SessionLock, node: str, answer: Answer) -> None:
    """Note what became of a removal; after a renewal, or if the lock is somebody else's now, the CAS is another."""
    if answer.kind == "restarted" if isinstance(answer, NodeFailure) else answer[0].status in ("HD", "NF"):
        lock.items.pop(node, None)
    else:
        lock.items[node] = UNKNOWN
