"""Sticky sessions: this worker's memory is the truth, the cluster the backup.

A request finds its session here and costs no round trip; requests that come at once share the live session, as in a
servlet container. What they change is written behind them.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from msm_fast._core import wire
from msm_fast._core.attributes import AttributeMap
from msm_fast._core.near_cache import NearCache
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import lay_over, needs_storing
from msm_fast.engine.context import Context, digest
from msm_fast.engine.effects import Batch, Flow, NodeFailure
from msm_fast.engine.exchanging import exchange
from msm_fast.engine.relocation import move_home
from msm_fast.engine.saving import save
from msm_fast.engine.serialization import encode_attributes
from msm_fast.errors import ConflictError, SessionUnavailable
from msm_fast.policies import SaveResult
from msm_fast.session import ABSENT, SessionState, Stored

__all__ = ["LiveSessions", "WriteNow"]

_TOUCHES_PER_LIFETIME = 10
_UNLIMITED_TOUCH_S = 3 * 3600.0


class WriteNow(Exception):
    """What a request changed must be written before it ends: by setting, or because the queue is full."""


@dataclass(slots=True)
class _Live:
    """One live session. accessed_at, touched_at: its last request, and when its copies' lives were last extended."""

    state: SessionState
    accessed_at: float
    touched_at: float


class LiveSessions:
    """The sessions of this worker.

    The least recently used are dropped when there are too many; one whose changes are still to be written is kept by
    the queue until they are.
    Thread-safety: shared by all threads; a session's own state is shared by the requests that have it.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        bounds = ctx.settings.near_cache
        self._table: NearCache = NearCache(bounds.max_sessions, max_bytes=bounds.max_bytes, clock=ctx.clock.monotonic)
        self._lock = threading.Lock()

    # -- the path of a request

    def find(self, session_id: SessionId) -> SessionState | None:
        """Return the live session, or None: it must be looked for elsewhere.

        An id with another worker's route was served there since: what is here may be old.
        Cost: no round trip and no flow.
        """
        ctx = self._ctx
        key = ctx.storage_key(session_id)
        live: _Live | None = self._table.get(key)
        if live is None or (session_id.route != ctx.settings.route and ctx.distribution.is_on):
            return None
        now = ctx.clock.monotonic()
        state = live.state
        if self._has_expired(live, now):
            self._table.pop(key)
            return None
        state.accessed_ms = ctx.now_ms() - int((now - live.accessed_at) * 1000)
        live.accessed_at = now
        state.is_new = False
        if state.local_kind is None and ctx.distribution.is_on:
            self._leave_bad_home(state)
            if now - live.touched_at >= self._touch_interval_s(state):
                live.touched_at = now
                ctx.behind.add(key, lambda: self._touch(key, state), replaces=False)
        return state

    def adopt(self, found: SessionState) -> SessionState:
        """Make a session that was found elsewhere live here, under this worker's route; return the live one.

        Of requests that come at once the first wins. If a live one is here already the client has been elsewhere: what
        was stored since is taken over, with what is still to be written from here laid over it.
        """
        ctx = self._ctx
        key = ctx.storage_key(found.session_id)
        with self._lock:
            live: _Live | None = self._table.get(key)
            if live is not None and not self._has_expired(live, ctx.clock.monotonic()):
                mine = live.state
                if mine.stored is None or (found.stored and found.stored.nonce == mine.stored.nonce):
                    found = mine
                elif ctx.behind.has(key):
                    base = AttributeMap.decode(mine.stored.body, serializer=ctx.serializers)
                    lay_over(found.attributes, base, mine.attributes)
                    found.must_store = True
            route = ctx.settings.route
            if found.session_id.route != route:
                found.session_id = found.session_id.with_route(route)
                found.must_store = True
            self._put(key, found)
            return found

    def keep(self, state: SessionState) -> SaveResult:
        """Note what a request changed, to be written behind it.

        Raises: SerializationError and SessionTooLarge by policy; StaysLocal; WriteNow.
        """
        ctx = self._ctx
        if state.was_ended:
            return SaveResult("invalidated")
        body = encode_attributes(ctx, state)
        if not needs_storing(state, body):
            ctx.counters.add("unchanged")
            return SaveResult("unchanged", state.session_id.node)
        ctx.counters.add("stored" if state.is_kept else "created")
        state.attributes.mark_saved(body)
        state.body = body
        state.must_store = False
        state.is_live = True
        key = ctx.storage_key(state.session_id)
        with self._lock:
            self._put(key, state)
        if ctx.settings.backup == "sync" or not ctx.behind.add(key, lambda: self._write(state)):
            raise WriteNow
        ctx.counters.add("queued")
        return SaveResult("queued", state.session_id.node)

    def put(self, state: SessionState) -> None:
        """Make a session live that was stored within its request."""
        state.is_live = True
        with self._lock:
            self._put(self._ctx.storage_key(state.session_id), state)

    def end(self, session_id: SessionId) -> None:
        """Forget a session that was ended, or has another id now; requests that still have it store nothing."""
        key = self._ctx.storage_key(session_id)
        self._ctx.behind.discard(key)
        live: _Live | None = self._table.pop(key)
        if live is not None and live.state.session_id.plain == session_id.plain:
            live.state.was_ended = True

    def dump(self, discards: bool) -> int:
        """Drop the sessions that were kept locally in an outage, to be found in the cluster again.

        discards: drop all others as well, and what is still to be written of them; return how many that were.
        """
        if discards:
            self._table.clear()
            return self._ctx.behind.clear()
        for key in self._table.keys():  # noqa: SIM118 - a method of the cache, which is no mapping
            live: _Live | None = self._table.get(key)
            if live is not None and live.state.local_kind is not None:
                self._table.pop(key)
        return 0

    def renew_after_fork(self) -> None:
        """Start empty in a forked child."""
        self._lock = threading.Lock()
        self._table.clear()

    # -- behind the requests

    def write(self, state: SessionState) -> Flow[SaveResult]:
        """Store what the live session is now.

        Raises: SessionUnavailable, ConflictError; it is to be tried again, or to be given up.
        """
        ctx = self._ctx
        body = state.body
        copy = _snapshot(ctx, state, body)
        result = yield from save(ctx, copy)
        key = ctx.storage_key(copy.session_id)
        if result.status == "invalidated":
            self.end(state.session_id)
            return result
        if state.session_id.plain != copy.session_id.plain:
            return result
        state.stored, state.has_moved = copy.stored, False
        state.session_id = copy.session_id.with_route(state.session_id.route)
        if result.status == "merged":
            self._take_in(state, body, copy.body)
        live: _Live | None = self._table.get(key)
        if live is not None:
            live.touched_at = ctx.clock.monotonic()
        return result

    def _write(self, state: SessionState) -> Flow[bool]:
        """Write a session behind its request; return whether that is done."""
        try:
            yield from self.write(state)
        except SessionUnavailable:
            return False
        except ConflictError as error:
            self._ctx.tell("dropped", str(error), session=digest(state.session_id))
            self._table.pop(self._ctx.storage_key(state.session_id))
        self._ctx.counters.add("written_behind")
        return True

    def _take_in(self, state: SessionState, written: bytes, merged: bytes) -> None:
        """Let the live session have what another worker had stored, where nothing was changed here since."""
        ctx = self._ctx
        before = AttributeMap.decode(written, serializer=ctx.serializers)
        after = AttributeMap.decode(merged, serializer=ctx.serializers)
        for name in {*before, *after}:
            if state.attributes.get(name, _NOTHING) != before.get(name, _NOTHING):
                continue
            if name not in after:
                state.attributes.pop(name, None)
            elif name not in before or before[name] != after[name]:
                state.attributes[name] = after[name]
        if state.body is written:
            body = encode_attributes(ctx, state)
            state.attributes.mark_saved(body)
            state.body = body

    def _touch(self, key: bytes, state: SessionState) -> Flow[bool]:
        """Extend the lives of the copies of a session that was only read; store it again where one is missing."""
        ctx = self._ctx
        if state.stored is None:
            return True
        exptime = ctx.exptime(ctx.ttl_s(state.max_inactive_s, state.created_ms, state.absolute_lifetime_s))
        nodes = [node for node, found in state.stored.copies.items() if found != ABSENT and ctx.health.is_up(node)]
        outcomes = yield from exchange(ctx, [Batch(node, [wire.get(key, exptime, value=False)]) for node in nodes])
        found = [o[0] for o in outcomes if not isinstance(o, NodeFailure)]
        if any(reply.status == "HD" and reply.client_flags != state.stored.nonce for reply in found):
            if not ctx.behind.has(key):
                self._table.pop(key)  # another worker has stored it since: the next request loads it
            return True
        if len(found) == len(nodes) > 0 and all(reply.status == "HD" for reply in found):
            return True
        state.stored = Stored(state.stored.generation, state.stored.lineage, {}, state.stored.body)
        return (yield from self._write(state))

    # -- inside

    def _put(self, key: bytes, state: SessionState) -> None:
        now = self._ctx.clock.monotonic()
        state.is_live = True
        self._table.put(key, _Live(state, now, now), size=len(state.body))

    def _has_expired(self, live: _Live, now: float) -> bool:
        state = live.state
        if state.max_inactive_s and now - live.accessed_at >= state.max_inactive_s:
            return True
        limit_ms = state.absolute_lifetime_s * 1000
        return bool(limit_ms) and self._ctx.now_ms() >= state.created_ms + limit_ms

    def _touch_interval_s(self, state: SessionState) -> float:
        return state.max_inactive_s / _TOUCHES_PER_LIFETIME if state.max_inactive_s else _UNLIMITED_TOUCH_S

    def _leave_bad_home(self, state: SessionState) -> None:
        """Give the session another node if its own cannot be used; it is stored there when the request ends."""
        ctx = self._ctx
        home = ctx.topology.home(state.session_id.node)
        if home is not None and ctx.health.is_up(home) and home not in ctx.topology.draining:
            return
        new_home = next(iter(ctx.topology.ranked(state.session_id.plain, ctx.health.is_up)), None)
        if new_home is not None and new_home != home:
            move_home(ctx, state, new_home)


_NOTHING = object()


def _snapshot(ctx: Context, state: SessionState, body: bytes) -> SessionState:
    """Return a state that can be saved while requests go on with the live one."""
    return SessionState(
        session_id=state.session_id,
        attributes=AttributeMap.decode(body, serializer=ctx.serializers),
        created_ms=state.created_ms,
        accessed_ms=state.accessed_ms,
        max_inactive_s=state.max_inactive_s,
        absolute_lifetime_s=state.absolute_lifetime_s,
        stored=state.stored,
        body=body,
        must_store=True,
        has_moved=state.has_moved,
        is_live=True,
        merge_base=state.stored.body if state.stored else b"",
        epoch=state.epoch,
    )
