"""What a request changed: whether it must be stored, and how it is laid over what another request stored first."""

from __future__ import annotations

from msm_fast._core.record import Record
from msm_fast.engine.context import Context, digest
from msm_fast.errors import ConflictError
from msm_fast.session import SessionState

__all__ = ["merge", "needs_storing"]


def needs_storing(state: SessionState, body: bytes) -> bool:
    """Whether a session with the encoded attributes body differs from what is stored.

    A new session to which nothing was written is not stored at all.
    """
    if not state.is_kept:
        return state.must_store or len(state.attributes) > 0
    return state.must_store or body is not state.body


def merge(ctx: Context, state: SessionState, winner: Record) -> None:
    """Lay this request's changes over the record that another one stored first.

    Two requests that changed different attributes both win; of one attribute the later value stays.
    Raises: ConflictError if settings.on_conflict is "error".
    """
    ctx.counters.add("conflicts")
    name = digest(state.session_id)
    ctx.tell("conflict", f"session {name} was changed by another request first", session=name)
    if ctx.settings.on_conflict == "error":
        raise ConflictError(
            f"session {name} was changed by another request first; nothing was saved. Load it and try again",
            session=name,
        )
    state.attributes.rebase(winner.body)
