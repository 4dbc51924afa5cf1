"""A session that gets a new id: what was stored under the old one comes along."""

from __future__ import annotations

from msm_fast.engine.changes import take_up
from msm_fast.engine.context import Context
from msm_fast.engine.effects import Flow
from msm_fast.engine.loading import load
from msm_fast.errors import CorruptRecord, SessionUnavailable
from msm_fast.session import SessionState

__all__ = ["bring_along"]


def bring_along(ctx: Context, state: SessionState) -> Flow[bool]:
    """Let the session have what others have stored under its old id since it was loaded.

    Under an id that stays the save itself would meet it. Under the new one nothing can be met, and the old copies are
    about to be ended. Return False if there is no session under the old id any more, as far as is known.
    Raises: ConflictError if settings.on_conflict is "error".
    """
    base = state.rotated_from  # which it keeps until it has what was stored: a request may be broken off here
    if base is None or not state.retired:
        state.rotated_from = None
        return True
    ctx.forget(ctx.storage_key(state.retired[-1]))  # else its backups might not be asked, and one may have moved on
    try:
        found = yield from load(ctx, state.retired[-1], True)
    except (SessionUnavailable, CorruptRecord):
        state.rotated_from = None
        return True
    if found is not None and take_up(ctx, state, base, found):
        state.retired_max_inactive_s = state.longest_max_inactive_s()
    state.rotated_from = None
    return found is not None
