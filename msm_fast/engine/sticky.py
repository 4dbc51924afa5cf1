"""Sticky sessions: the worker's memory is the truth, the cluster the backup.

A request finds its session here and costs no round trip and no flow. What it changes is written behind it, as
settings.backup says, or before it ends. Plain functions try first; where they have no answer, a flow has.
"""

from __future__ import annotations

from msm_fast._core.session_id import SessionId
from msm_fast.engine.changes import carry_over, needs_storing
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.keeping import move_base
from msm_fast.engine.live_sessions import LiveSessions
from msm_fast.engine.live_writing import LiveWriter
from msm_fast.engine.loading import load, was_ended
from msm_fast.engine.local import kept_record
from msm_fast.engine.relocation import leave_home
from msm_fast.engine.rotating import bring_along
from msm_fast.engine.serialization import StaysLocal, encode_attributes
from msm_fast.engine.serving import find, store
from msm_fast.errors import CorruptRecord, MsmError, SessionUnavailable, UnknownFormat
from msm_fast.policies import SaveResult
from msm_fast.session import SessionState

__all__ = ["StickySessions"]

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
        self._writer = LiveWriter(ctx, self._live)
        ctx.dump_live, ctx.replay_live = self._dump, self._replay
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
                if now >= state.touch_at or not self._is_at_rest(state):
                    self._look_after(key, state, now)
            elif state.local_kind == "local":
                return None
        return self._use(state, now)

    def find(self, session_id: SessionId, expect_write: bool) -> Flow[SessionState | None]:
        """Return a session that `find_at_once` did not, or None if there is none; it lives here from now on.

        Raises: as serving.find.
        """
        ctx = self._ctx
        key = ctx.storage_key(session_id)
        live = self._live.get(key)
        is_foreign = session_id.route != self._route
        if live is not None and live.local_kind is None and not self._live.has_expired(live, ctx.clock.monotonic()):
            return (yield from self._find_newer(session_id, live))
        found = yield from find(ctx, session_id, expect_write or is_foreign)
        if found is None:
            return None
        if found.local_kind == "tagged":
            return self._live.share(found)
        if found.local_kind is None:
            return self._adopt(found)
        live = self._live.get(key)  # another request may have been given the session meanwhile
        if live is None or live.local_kind is not None:
            return found
        return self._use(live, ctx.clock.monotonic())  # what was kept beside that would stay here unseen

    def store_at_once(self, state: SessionState) -> SaveResult | None:
        """Store what a request changed here, to be written behind it; None: `store` must write it now.

        Raises: SerializationError and SessionTooLarge by policy; ConflictError if settings.on_conflict says so.
        Cost: for a session that did not change, that of finding this out.
        """
        if state.was_ended:
            return _INVALIDATED
        epoch = self._ctx.distribution.epoch
        if not self._ctx.distribution.is_on:
            kept = self._writer.keep_unless_back(state, epoch)
            if kept is not None:
                return kept
        if state.local_kind is not None or state.is_ended or state.retired:
            return None
        try:
            return self._keep(state)
        except StaysLocal as stays:
            return self._writer.stay_local(state, stays)

    def store(self, state: SessionState) -> Flow[SaveResult]:
        """Store what a request changed in the cluster now.

        Raises: as serving.store.
        """
        if state.is_live and state.local_kind is None:
            return (yield from self._writer.write_now(state))
        ended = [(session_id, self._live.end(session_id, state)) for session_id in state.retired]
        try:
            if any(live is not None for _, live in ended) and (yield from self._was_ended_elsewhere(state)):
                state.was_ended = True
                return _INVALIDATED
            result = yield from store(self._ctx, state)
        finally:
            is_over = state.is_ended or state.was_ended
            is_in_its_place = is_over or state.stored is not None or state.local_generation > 0
            for session_id, live in ended:
                if is_in_its_place:
                    self._live.end(session_id)  # also what a request has loaded before the tombstones were there
                else:
                    self._live_on(session_id, live, state)
        if state.local_kind in (None, "tagged") and state.is_kept and result.status != "invalidated":
            key = self._ctx.storage_key(state.session_id)
            with self._live.lock(key):
                if state.was_ended:  # by another request that shares it, just now
                    return _INVALIDATED
                live = self._live.put(key, state)
                if live is not state and state.local_kind is None:  # it came since, from the cluster
                    self._live.take_in(live, state)
        return result

    def _was_ended_elsewhere(self, state: SessionState) -> Flow[bool]:
        """Whether a session that has lived here, and is to have a new id, was ended by another worker.

        Not by another request of this one: of two logins at once neither ends the other's session.
        """
        if state.rotated_from is None or not self._ctx.distribution.is_on or (yield from bring_along(self._ctx, state)):
            return False
        session_id = state.retired[-1]
        try:
            return (yield from was_ended(self._ctx, session_id)) and self._live.is_ended_by(session_id, state)
        except (SessionUnavailable, CorruptRecord):
            return False

    def _live_on(self, session_id: SessionId, live: SessionState | None, heir: SessionState) -> None:
        """Let a session keep its id, with which its client comes again: it could not be stored under the new one."""
        if self._live.revive(session_id, live, heir) and live is not None and live.revision != live.written_revision:
            live.must_store |= not self._writer.queue(self._ctx.storage_key(session_id), live)

    # -- found here

    def _use(self, state: SessionState, now: float) -> SessionState:
        """Note that a request has the session."""
        if state.used_at is not None:
            state.accessed_ms = self._ctx.now_ms() - int((now - state.used_at) * 1000)
        state.used_at = now
        state.is_new = False
        return state

    def _is_at_rest(self, state: SessionState) -> bool:
        """Whether every node is well, and the session's is to stay: most likely nothing is to be looked after."""
        topology = self._ctx.topology
        is_ours = (state.session_id.node or "") in topology.nodes
        return self._ctx.health.is_quiet and is_ours and not topology.draining and not self._may_lack_copies(state)

    def _may_lack_copies(self, state: SessionState) -> bool:
        """Whether a node has come back, or has lost its memory, since the session's copies were looked at."""
        return self._live.touched_at(state) <= self._ctx.health.lacks_since

    def _look_after(self, key: bytes, state: SessionState, now: float) -> None:
        """Let the session leave a node that cannot be used, at the end of this request, and keep its copies alive."""
        ctx = self._ctx
        home = state.session_id.node or ""
        leave_home(ctx, state, home, is_lost=not ctx.health.is_up(home))
        is_due = now >= state.touch_at or self._may_lack_copies(state)
        if is_due and self._writer.queue_touch(key, state):
            self._live.note_touched(state)

    def _is_older_than_kept(self, session_id: SessionId, state: SessionState) -> bool:
        """Whether, in an outage, another worker of this host has kept the session since."""
        try:
            kept = kept_record(self._ctx, session_id)
        except SessionUnavailable:
            return False
        return kept is not None and kept.generation > state.local_generation

    # -- found elsewhere

    def _adopt(self, found: SessionState) -> SessionState | None:
        """Make the session live here, under this worker's route and not on a node that is for failover here."""
        state = self._live.adopt(found)
        if state is None:
            return None
        if state.session_id.route != self._route:
            state.session_id = state.session_id.with_route(self._route)
            state.must_store = True
        home = self._ctx.topology.home(state.session_id.node)
        ranked = self._ctx.topology.ranked(state.session_id.plain, self._ctx.health.is_up)
        leave_home(self._ctx, state, home, is_lost=home not in ranked)
        return state

    def _find_newer(self, session_id: SessionId, live: SessionState) -> Flow[SessionState | None]:
        """Return a session that lives here and was served by another worker since, with what was stored there."""
        ctx = self._ctx
        try:
            found = yield from load(ctx, session_id, True)
            if found is None and live.revision != live.written_revision:
                result = yield from self._writer.write(live)  # it was ended, or its copies are lost: this tells
                return None if result.status == "invalidated" else self._use(live, ctx.clock.monotonic())
        except UnknownFormat:  # what lives here is older: it may have been ended since
            self._live.forget(ctx.storage_key(session_id))
            return (yield from self.find(session_id, True))
        except (SessionUnavailable, CorruptRecord) as error:
            ctx.counters.add("fallbacks")
            ctx.tell_session("fallback", session_id, f"is served from memory: {error}")
            return self._use(live, ctx.clock.monotonic())
        if found is None:
            self._live.end(session_id)
            return None
        return self._adopt(found)

    # -- after an outage

    def _replay(self, key: bytes, generation: int) -> Flow[bool]:
        """Write a session that was kept here; it has its place here, so it is stored also if no node has it any more.

        Return whether it lives here. Raises: as LiveWriter.write.
        """
        live = self._live.take_back(key, generation)
        if live is None:
            return False
        try:
            yield from self._writer.write(live)
        except SessionUnavailable:
            self._live.give_back(key, live)
            raise
        except (MsmError, StaysLocal):
            self._live.forget(key)
            raise
        with self._live.lock(key):
            if live.local_kind == "local" and live.stored is not None:  # a request has changed it while it was written
                live.local_generation = move_base(self._ctx, key, live.stored.body, live)
        return True

    def _dump(self, discards: bool) -> int:
        """Drop the live sessions that were kept here, or all; return how many changes are lost."""
        if discards:
            return self._live.clear()
        self._live.forget_local()
        return 0

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
            if state.was_ended:  # since `store_at_once` has looked
                return _INVALIDATED
            if state.body is not before:  # another request that shares it was first
                body = encode_attributes(ctx, state)
            before, state.body = state.body, body  # first: a thread that gives the session a new id may take both along
            live = self._live.put(key, state)
            state.attributes.mark_saved(body)
            state.must_store = False
            if live is not state:  # it was dropped while this request had it
                self._live.rebase(key, live, carry_over(ctx, before, body, live.body))
            live.revision += 1
            live.used_at = ctx.clock.monotonic()  # its request may have come hours ago: a websocket's
        if self._is_synchronous or not self._writer.queue(key, live):
            return None
        ctx.counters.add("queued")
        return SaveResult("queued", live.session_id.node)

    def _unchanged_at(self, node: str | None) -> SaveResult:
        result = self._unchanged.get(node)
        if result is None:
            result = self._unchanged[node] = SaveResult("unchanged", node)
        return result
