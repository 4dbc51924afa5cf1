"""Writes what changed in the live sessions of a sticky worker, behind its requests or within them."""

from __future__ import annotations

from functools import partial

from msm_fast._core import wire
from msm_fast._core.attributes import AttributeMap
from msm_fast.engine.changes import carry_over
from msm_fast.engine.context import Context, digest
from msm_fast.engine.effects import Batch, Flow, NodeFailure, Sleep
from msm_fast.engine.exchanging import exchange, let_live
from msm_fast.engine.keeping import keep_unless_back
from msm_fast.engine.live_sessions import LiveSessions
from msm_fast.engine.loading import load
from msm_fast.engine.saving import save
from msm_fast.engine.serialization import StaysLocal
from msm_fast.engine.tagged import stay_local
from msm_fast.errors import (
    ConflictError,
    CorruptRecord,
    SerializationError,
    SessionTooLarge,
    SessionUnavailable,
    UnknownFormat,
)
from msm_fast.policies import SaveResult
from msm_fast.session import ABSENT, SessionState, Stored

__all__ = ["LiveWriter"]

_POLL_S = 0.002
"""How often a write looks whether the one before it, of the same session, has ended."""


class LiveWriter:
    """Stores live sessions in the cluster, and on this host while that is not used.

    One write of a session is on its way at a time. One whose outcome is not known is tried again as it was, before
    anything newer.
    Thread-safety: shared by all threads and flows.
    """

    def __init__(self, ctx: Context, live: LiveSessions) -> None:
        self._ctx = ctx
        self._live = live

    def queue(self, key: bytes, state: SessionState) -> bool:
        """Let the session be written behind the request; return whether there was room for that."""
        return self._ctx.behind.add(key, partial(self._write_behind, state), size=len(state.body))

    def queue_touch(self, key: bytes, state: SessionState) -> bool:
        """Let the lives of the session's copies be extended behind the request; return whether there was room."""
        return self._ctx.behind.add(key, partial(self._touch, key, state), is_write=False)

    def keep_unless_back(self, state: SessionState, epoch: int) -> SaveResult | None:
        """Store what a request changed on this host while the cluster is not used, as local.keep_unless_back."""
        key = self._ctx.storage_key(state.session_id)
        ended = state.retired
        with self._live.lock(key):
            kind = state.local_kind
            result = keep_unless_back(self._ctx, state, epoch)
            if result is None:
                state.local_kind = kind
                return None
            if result.status == "unchanged":
                state.local_kind = kind
            elif result.status == "local":
                self._ctx.behind.discard(key)  # what was still to be written is kept with the rest now
                self._live.note_size(key, state)
        for session_id in ended:
            self._live.end(session_id)
        return result

    def stay_local(self, state: SessionState, stays: StaysLocal) -> SaveResult:
        """Keep a session here that the cluster cannot have, as the policy says."""
        key = self._ctx.storage_key(state.session_id)
        with self._live.lock(key):
            if state.was_ended:  # by another request, since this one has looked
                return SaveResult("invalidated")
            result = stay_local(self._ctx, state, stays)
            if state.local_kind == "tagged":
                self._ctx.behind.discard(key)
                self._live.put(key, state)
            return result

    def write_now(self, state: SessionState) -> Flow[SaveResult]:
        """Write a session within its request; what cannot be written stays to be written behind it."""
        ctx = self._ctx
        key = ctx.storage_key(state.session_id)
        state = self._live.get(key) or state
        epoch = ctx.distribution.epoch
        try:
            return (yield from self.write(state))
        except StaysLocal as stays:
            return self.stay_local(state, stays)
        except ConflictError:
            self._live.forget(key)
            raise
        except SessionUnavailable:
            is_queued = self.queue(key, state)
            if ctx.settings.on_cluster_lost == "error":
                state.must_store = not is_queued
                raise
            if is_queued:
                ctx.counters.add("queued")
                return SaveResult("queued", state.session_id.node)
            self._live.forget(key)
            state.must_store = True
            result = self.keep_unless_back(state, epoch)
            if result is None:
                raise
            return result

    def _write_behind(self, state: SessionState) -> Flow[bool]:
        """Write a session behind its requests; return whether that is done, or given up."""
        ctx = self._ctx
        if state.was_ended:
            return True  # since this was begun, and failed: nodes may have lost the tombstones
        try:
            yield from self.write(state)
        except SessionUnavailable:
            ctx.counters.add("rewritten")
            return False
        except StaysLocal as stays:
            self.stay_local(state, stays)
        except (SerializationError, SessionTooLarge):
            return True  # told, and the application is stopped
        except ConflictError as error:
            ctx.counters.add("dropped")
            ctx.tell("dropped", str(error), session=digest(state.session_id))
            self._live.forget(ctx.storage_key(state.session_id))
        ctx.counters.add("written_behind")
        return True

    def write(self, state: SessionState) -> Flow[SaveResult]:
        """Store what the live session is now, after what was left unsettled.

        Raises: SessionUnavailable, ConflictError, and as encode_attributes if it does not fit a node that is new.
        """
        key = self._ctx.storage_key(state.session_id)
        result = None
        turn = object()
        try:  # it has its turn from within: a request may be broken off anywhere
            yield from self._wait_for_turn(key, state, turn)
            while state.written_revision != state.revision:
                result = yield from self._write_once(key, state)
                if result.status == "invalidated":
                    self._live.end(state.session_id)
                    break
        finally:
            if state.turn is turn:
                state.turn = None
        return result or _as_stored(state)

    def _wait_for_turn(self, key: bytes, state: SessionState, turn: object) -> Flow[None]:
        """Wait until no other write of the session is on its way.

        Raises: SessionUnavailable if there is no time left for that.
        """
        is_in_time = True
        while is_in_time:
            with self._live.lock(key):
                if state.turn is None:
                    state.turn = turn
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
        written, lifetimes_set = view.body, _lifetimes_set(view)
        try:
            result = yield from save(self._ctx, view)
        except (ConflictError, StaysLocal, SerializationError, SessionTooLarge):
            state.unsettled = None
            raise
        if result.status != "invalidated":
            with self._live.lock(key):
                for name, seconds in lifetimes_set.items():  # what was set since stays, also if it was set back
                    setattr(state, f"stored_{name}", seconds)
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
        state.moved_from = None
        state.take_lifetimes(view.max_inactive_s, view.absolute_lifetime_s)
        state.session_id = state.session_id.with_node(view.session_id.node)
        self._live.note_touched(state)
        if result.status == "merged":
            self._live.rebase(key, state, carry_over(ctx, written, state.body, view.body))
        if view.local_generation:
            ctx.local.delete(key, view.local_generation)
            if state.local_generation == view.local_generation:  # else a request has kept more here since
                state.local_generation = 0
                if state.local_kind == "local":
                    state.local_kind = None

    def _touch(self, key: bytes, state: SessionState) -> Flow[bool]:
        """Extend the lives of the copies of a session that was only read.

        Where one is missing, or is old, the session is stored again. What another worker has stored is taken over.
        """
        ctx = self._ctx
        stored = state.stored
        if stored is None or state.was_ended:
            return True
        if state.revision != state.written_revision:  # such a write extends them too, and may have failed before
            return (yield from self._write_behind(state))
        exptime = ctx.exptime(ctx.life_s(state))
        nodes = [node for node, found in stored.copies.items() if found != ABSENT and ctx.health.is_up(node)]
        batches = [Batch(node, [wire.get(key, exptime, value=False)]) for node in nodes]
        outcomes = (yield from exchange(ctx, batches)) if batches else []
        answers = zip(nodes, outcomes, strict=True)
        answered = {node: outcome[0] for node, outcome in answers if not isinstance(outcome, NodeFailure)}
        has_copy = {node: reply for node, reply in answered.items() if reply.status == "HD"}
        lives = {n: reply.ttl_s for n, reply in has_copy.items() if reply.client_flags not in stored.lineage}
        if lives:
            return (yield from self._take_over_again(key, state, lives))
        n_wanted = min(1 + ctx.settings.replicas, len(ctx.topology.ranked(state.session_id.plain, ctx.health.is_up)))
        current = [reply for reply in has_copy.values() if reply.client_flags == stored.nonce]
        if len(current) >= max(n_wanted, len(nodes)):
            return True
        state.stored = Stored(stored.generation, stored.lineage, {}, stored.body)
        return (yield from self._write_again(key, state))

    def _write_again(self, key: bytes, state: SessionState) -> Flow[bool]:
        with self._live.lock(key):
            state.revision += 1
        return (yield from self._write_behind(state))

    def _take_over_again(self, key: bytes, state: SessionState, lives: dict[str, int]) -> Flow[bool]:
        """Take over what another worker has stored. lives: of those copies, before this worker has touched them."""
        try:
            found = yield from load(self._ctx, state.session_id, True)
        except UnknownFormat:  # what lives here is older: it may have been ended since
            yield from let_live(self._ctx, key, lives)
            self._live.forget(key)
            return True
        except (SessionUnavailable, CorruptRecord):
            return False
        if found is None:
            self._live.end(state.session_id)
            return True
        self._live.take_in(state, found)
        return (yield from self._write_again(key, state)) if found.must_store else True


def _as_stored(state: SessionState) -> SaveResult:
    """Return what the write of another request, which had this one's changes in it, has done."""
    home = state.session_id.node
    copies = state.stored.copies if state.stored is not None else {}
    return SaveResult("stored", home, tuple(n for n, found in copies.items() if found > 0 and n != (home or "")))


def _snapshot(ctx: Context, state: SessionState) -> SessionState:
    """Return a state that can be saved while requests go on with the live one."""
    view = SessionState(
        session_id=state.session_id,
        attributes=AttributeMap.decode(state.body, serializer=ctx.serializers),
        created_ms=state.created_ms,
        accessed_ms=state.accessed_ms,
        max_inactive_s=state.max_inactive_s,
        absolute_lifetime_s=state.absolute_lifetime_s,
        stored=state.stored,
        body=state.body,
        must_store=True,
        moved_from=state.moved_from,
        is_live=True,
        merge_base=state.stored.body if state.stored else b"",
        local_generation=state.local_generation,
        epoch=state.epoch,
        used_at=state.used_at,
        revision=state.revision,
    )
    view.stored_max_inactive_s = state.stored_max_inactive_s
    view.stored_absolute_lifetime_s = state.stored_absolute_lifetime_s
    return view


def _lifetimes_set(view: SessionState) -> dict[str, int]:
    """Return the lifetimes that are stored with the view because requests here have set them, by name."""
    names = ("max_inactive_s", "absolute_lifetime_s")
    return {name: getattr(view, name) for name in names if getattr(view, name) != getattr(view, f"stored_{name}")}
