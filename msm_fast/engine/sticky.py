"""Sticky sessions: the worker's memory is the truth, the cluster the backup.

A request finds its session here and costs no round trip and no flow. What it changes is written behind it, as
settings.backup says, or before it ends. Plain functions try first; where they have no answer, a flow has.
"""

from __future__ import annotations

from functools import partial

from msm_fast._core import wire
from msm_fast._core.attributes import AttributeMap
from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import carry_over, needs_storing
from msm_fast.engine.context import Context, digest
from msm_fast.engine.effects import Batch, Flow, NodeFailure, Sleep
from msm_fast.engine.exchanging import exchange
from msm_fast.engine.live_sessions import LiveSessions
from msm_fast.engine.loading import load
from msm_fast.engine.local import keep_locally, kept_record
from msm_fast.engine.relocation import move_home
from msm_fast.engine.saving import save
from msm_fast.engine.serialization import StaysLocal, encode_attributes
from msm_fast.engine.serving import find, stay_local, store
from msm_fast.errors import ConflictError, CorruptRecord, SerializationError, SessionTooLarge, SessionUnavailable
from msm_fast.policies import SaveResult
from msm_fast.session import ABSENT, SessionState, Stored

__all__ = ["StickySessions"]

_POLL_S = 0.002
"""How often a write looks whether the one before it, of the same session, has ended."""

_INVALIDATED = SaveResult("invalidated")


class StickySessions:
    """Finds and stores the sessions of a worker that serves them from its memory.

    Thread-safety: shared by all threads and flows.
    """

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._route = ctx.settings.route
        self._is_synchronous = ctx.settings.backup == "sync"
        self._unchanged: dict[str | None, SaveResult] = {}
        self._live = LiveSessions(ctx)
        ctx.dump_live = self._live.dump
        self.sweep = self._live.sweep
        self.renew_after_fork = self._live.renew_after_fork

    # -- the path of a request

    def find_at_once(self, session_id: SessionId) -> SessionState | None:
        """Return the live session, or None: it must be looked for elsewhere.

        An id with another worker's route was served there since: what is here may be old.
        Cost: no round trip, no flow.
        """
        ctx = self._ctx
        key = ctx.storage_key(session_id)
        state = self._live.get(key)
        if state is None:
            return None
        is_on = ctx.distribution.is_on
        if session_id.route != self._route and (is_on or self._is_older_than_kept(session_id, state)):
            return None
        now = ctx.clock.monotonic()
        if self._live.has_expired(state, now):
            self._live.forget(key)
            return None
        if is_on:
            if state.local_kind is None:
                self._look_after(key, state, now)
            elif state.local_kind == "local":
                return None
        return self._use(state, now)

    def find(self, session_id: SessionId, expect_write: bool) -> Flow[SessionState | None]:
        """Return a session that `find_at_once` did not, or None if there is none; it lives here from now on.

        Raises: as serving.find.
        """
        ctx = self._ctx
        live = self._live.get(ctx.storage_key(session_id))
        is_foreign = session_id.route != self._route
        if live is not None and live.local_kind is None and not self._live.has_expired(live, ctx.clock.monotonic()):
            return (yield from self._find_newer(session_id, live))
        found = yield from find(ctx, session_id, expect_write or is_foreign)
        if found is None or found.local_kind is not None:
            return found
        return self._adopt(found)

    def store_at_once(self, state: SessionState) -> SaveResult | None:
        """Store what a request changed here, to be written behind it; None: `store` must write it now.

        Raises: SerializationError and SessionTooLarge by policy; ConflictError if settings.on_conflict says so.
        Cost: for a session that did not change, that of finding this out.
        """
        if state.was_ended:
            return _INVALIDATED
        if not self._ctx.distribution.is_on:
            return self._keep_locally(state)
        if state.local_kind is not None or state.is_ended or state.retired:
            return None
        try:
            return self._keep(state)
        except StaysLocal as stays:
            return self._stay_local(state, stays)

    def store(self, state: SessionState) -> Flow[SaveResult]:
        """Store what a request changed in the cluster now.

        Raises: as serving.store.
        """
        if state.is_live and state.local_kind is None:
            return (yield from self._write_now(state))
        ended = list(state.retired)
        for session_id in ended:
            self._live.end(session_id)
        try:
            result = yield from store(self._ctx, state)
        finally:
            for session_id in ended:  # also what a request has loaded before the tombstones were there
                self._live.end(session_id)
        if state.local_kind in (None, "tagged") and state.is_kept and result.status != "invalidated":
            key = self._ctx.storage_key(state.session_id)
            with self._live.lock(key):
                self._live.put(key, state)
        return result

    # -- found here

    def _use(self, state: SessionState, now: float) -> SessionState:
        """Note that a request has the session."""
        if state.used_at is not None:
            state.accessed_ms = self._ctx.now_ms() - int((now - state.used_at) * 1000)
        state.used_at = now
        state.is_new = False
        return state

    def _look_after(self, key: bytes, state: SessionState, now: float) -> None:
        """Let the session leave a node that cannot be used, at the end of this request, and keep its copies alive."""
        ctx = self._ctx
        home = state.session_id.node or ""
        if not ctx.health.is_up(home) or home in ctx.topology.draining:
            self._move(state, home)
        if now >= state.touch_at and ctx.behind.add(key, partial(self._touch, key, state), is_write=False):
            self._live.note_touched(state)

    def _move(self, state: SessionState, home: str | None) -> None:
        new_home = next(iter(self._ctx.topology.ranked(state.session_id.plain, self._ctx.health.is_up)), None)
        if new_home is not None and new_home != home:
            move_home(self._ctx, state, new_home)

    def _is_older_than_kept(self, session_id: SessionId, state: SessionState) -> bool:
        """Whether, in an outage, another worker of this host has kept the session since."""
        try:
            kept = kept_record(self._ctx, session_id)
        except SessionUnavailable:
            return False
        return kept is not None and kept.generation > state.local_generation

    # -- found elsewhere

    def _adopt(self, found: SessionState) -> SessionState | None:
        """Make the session live here, under this worker's route."""
        state = self._live.adopt(found)
        if state is not None and state.session_id.route != self._route:
            state.session_id = state.session_id.with_route(self._route)
            state.must_store = True
            home = self._ctx.topology.home(state.session_id.node)
            if home not in self._ctx.topology.ranked(state.session_id.plain, self._ctx.health.is_up):
                self._move(state, home)  # one for failover here may be none for the worker that had the session
        return state

    def _find_newer(self, session_id: SessionId, live: SessionState) -> Flow[SessionState | None]:
        """Return a session that lives here and was served by another worker since, with what was stored there."""
        ctx = self._ctx
        try:
            found = yield from load(ctx, session_id, True)
            if found is None and live.revision != live.written_revision:
                result = yield from self._write(live)  # it was ended, or its copies are lost: this tells
                return None if result.status == "invalidated" else self._use(live, ctx.clock.monotonic())
        except (SessionUnavailable, CorruptRecord) as error:
            name = digest(session_id)
            ctx.counters.add("fallbacks")
            ctx.tell("fallback", f"session {name} is served from memory: {error}", session=name)
            return self._use(live, ctx.clock.monotonic())
        if found is None:
            self._live.end(session_id)
            return None
        return self._adopt(found)

    # -- kept here

    def _keep(self, state: SessionState) -> SaveResult | None:
        """Note what a request changed, and let it be written behind the request; None: it must be written now."""
        ctx = self._ctx
        before = state.body
        body = encode_attributes(ctx, state)
        if not needs_storing(state, body):
            ctx.counters.add("unchanged")
            return self._unchanged_at(state.session_id.node)
        key = ctx.storage_key(state.session_id)
        with self._live.lock(key):
            if state.body is not before:  # another request that shares it was first
                body = encode_attributes(ctx, state)
            live = self._live.put(key, state)
            before = state.body
            state.attributes.mark_saved(body)
            state.body = body
            state.must_store = False
            if live is not state:  # it was dropped while this request had it
                self._live.rebase(live, carry_over(ctx, before, body, live.body))
            live.revision += 1
        if self._is_synchronous or not ctx.behind.add(key, partial(self._write_behind, live)):
            return None
        ctx.counters.add("queued")
        return SaveResult("queued", live.session_id.node)

    def _unchanged_at(self, node: str | None) -> SaveResult:
        result = self._unchanged.get(node)
        if result is None:
            result = self._unchanged[node] = SaveResult("unchanged", node)
        return result

    def _keep_locally(self, state: SessionState) -> SaveResult:
        """Store what a request changed on this host, while the cluster is not used."""
        key = self._ctx.storage_key(state.session_id)
        ended = list(state.retired)
        with self._live.lock(key):
            kind = state.local_kind
            result = keep_locally(self._ctx, state)
            if result.status == "unchanged":
                state.local_kind = kind
            elif result.status == "local":
                self._ctx.behind.discard(key)  # what was still to be written is kept with the rest now
        for session_id in ended:
            self._live.end(session_id)
        return result

    def _stay_local(self, state: SessionState, stays: StaysLocal) -> SaveResult:
        key = self._ctx.storage_key(state.session_id)
        with self._live.lock(key):
            result = stay_local(self._ctx, state, stays)
            if state.local_kind == "tagged":
                self._ctx.behind.discard(key)
                self._live.put(key, state)
            return result

    # -- written

    def _write_now(self, state: SessionState) -> Flow[SaveResult]:
        """Write a session within its request; what cannot be written stays to be written behind it."""
        ctx = self._ctx
        key = ctx.storage_key(state.session_id)
        state = self._live.get(key) or state
        try:
            return (yield from self._write(state))
        except StaysLocal as stays:
            return self._stay_local(state, stays)
        except ConflictError:
            self._live.forget(key)
            raise
        except SessionUnavailable:
            is_queued = ctx.behind.add(key, partial(self._write_behind, state))
            if ctx.settings.on_cluster_lost == "error":
                state.must_store = not is_queued
                raise
            if is_queued:
                ctx.counters.add("queued")
                return SaveResult("queued", state.session_id.node)
            self._live.forget(key)
            state.must_store = True
            return self._keep_locally(state)

    def _write_behind(self, state: SessionState) -> Flow[bool]:
        """Write a session behind its requests; return whether that is done, or given up."""
        ctx = self._ctx
        try:
            yield from self._write(state)
        except SessionUnavailable:
            ctx.counters.add("rewritten")
            return False
        except StaysLocal as stays:
            self._stay_local(state, stays)
        except (SerializationError, SessionTooLarge):
            return True  # told, and the application is stopped
        except ConflictError as error:
            ctx.counters.add("dropped")
            ctx.tell("dropped", str(error), session=digest(state.session_id))
            self._live.forget(ctx.storage_key(state.session_id))
        ctx.counters.add("written_behind")
        return True

    def _write(self, state: SessionState) -> Flow[SaveResult]:
        """Store what the live session is now, after what was left unsettled.

        Raises: SessionUnavailable, ConflictError, and as encode_attributes if it does not fit a node that is new.
        """
        key = self._ctx.storage_key(state.session_id)
        yield from self._wait_for_turn(key, state)
        result = SaveResult("stored", state.session_id.node)
        try:
            while state.written_revision != state.revision:
                result = yield from self._write_once(key, state)
                if result.status == "invalidated":
                    self._live.end(state.session_id)
                    break
        finally:
            state.is_writing = False
        return result

    def _wait_for_turn(self, key: bytes, state: SessionState) -> Flow[None]:
        """Wait until no other write of the session is on its way.

        Raises: SessionUnavailable if there is no time left for that.
        """
        is_in_time = True
        while is_in_time:
            with self._live.lock(key):
                if not state.is_writing:
                    state.is_writing = True
                    return
            is_in_time = yield Sleep(_POLL_S)
        name = digest(state.session_id)
        raise SessionUnavailable(
            f"session {name} was being written for another request all the time that this one had", session=name
        )

    def _write_once(self, key: bytes, state: SessionState) -> Flow[SaveResult]:
        with self._live.lock(key):
            view = state.unsettled
            if view is None:
                view = state.unsettled = _snapshot(self._ctx, state)
        view.used_at = state.used_at
        written = view.body
        try:
            result = yield from save(self._ctx, view)
        except (ConflictError, StaysLocal, SerializationError, SessionTooLarge):
            state.unsettled = None
            raise
        if result.status != "invalidated":
            with self._live.lock(key):
                self._settle(key, state, view, written, result)
        return result

    def _settle(self, key: bytes, state: SessionState, view: SessionState, written: bytes, result: SaveResult) -> None:
        """Note what was stored, and what others had stored before."""
        ctx = self._ctx
        state.unsettled = None
        state.written_revision = view.revision
        assert view.stored is not None
        if state.stored is None or view.stored.nonce not in state.stored.lineage:
            state.stored = view.stored
        state.has_moved = False
        state.session_id = state.session_id.with_node(view.session_id.node)
        self._live.note_touched(state)
        if result.status == "merged":
            self._live.rebase(state, carry_over(ctx, written, state.body, view.body))
        if state.local_generation:
            ctx.local.delete(key, state.local_generation)
            state.local_generation = 0

    def _touch(self, key: bytes, state: SessionState) -> Flow[bool]:
        """Extend the lives of the copies of a session that was only read.

        Where one is missing, or is old, the session is stored again. What another worker has stored is taken over.
        """
        ctx = self._ctx
        stored = state.stored
        if stored is None or state.was_ended or state.revision != state.written_revision:
            return True  # what is still to be written extends them too
        exptime = ctx.exptime(ctx.life_s(state))
        nodes = [node for node, found in stored.copies.items() if found != ABSENT and ctx.health.is_up(node)]
        batches = [Batch(node, [wire.get(key, exptime, value=False)]) for node in nodes]
        outcomes = (yield from exchange(ctx, batches)) if batches else []
        found = [outcome[0] for outcome in outcomes if not isinstance(outcome, NodeFailure)]
        if any(reply.status == "HD" and reply.client_flags not in stored.lineage for reply in found):
            return (yield from self._take_over_again(key, state))
        n_wanted = min(1 + ctx.settings.replicas, len(ctx.topology.ranked(state.session_id.plain, ctx.health.is_up)))
        current = [reply for reply in found if reply.status == "HD" and reply.client_flags == stored.nonce]
        if len(current) >= max(n_wanted, len(nodes)):
            return True
        state.stored = Stored(stored.generation, stored.lineage, {}, stored.body)
        return (yield from self._write_again(key, state))

    def _write_again(self, key: bytes, state: SessionState) -> Flow[bool]:
        with self._live.lock(key):
            state.revision += 1
        return (yield from self._write_behind(state))

    def _take_over_again(self, key: bytes, state: SessionState) -> Flow[bool]:
        try:
            found = yield from load(self._ctx, state.session_id, True)
        except (SessionUnavailable, CorruptRecord):
            return False
        if found is None:
            self._live.end(state.session_id)
            return True
        self._live.take_in(state, found)
        return (yield from self._write_again(key, state)) if found.must_store else True


def _snapshot(ctx: Context, state: SessionState) -> SessionState:
    """Return a state that can be saved while requests go on with the live one."""
    return SessionState(
        session_id=state.session_id,
        attributes=AttributeMap.decode(state.body, serializer=ctx.serializers),
        created_ms=state.created_ms,
        accessed_ms=state.accessed_ms,
        max_inactive_s=state.max_inactive_s,
        absolute_lifetime_s=state.absolute_lifetime_s,
        stored=state.stored,
        body=state.body,
        must_store=True,
        has_moved=state.has_moved,
        is_live=True,
        merge_base=state.stored.body if state.stored else b"",
        epoch=state.epoch,
        used_at=state.used_at,
        revision=state.revision,
    )
