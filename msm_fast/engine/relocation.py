"""Moving a session to another node: its id gets another suffix, its key stays."""

from __future__ import annotations

from msm_fast._core.record import Record
from msm_fast.engine.context import Context
from msm_fast.session import SessionState

__all__ = ["follow_home", "leave_home", "move_home"]


def follow_home(ctx: Context, state: SessionState, home: str, record: Record) -> str:
    """Return the session's home as its record names it, and let the id name it too.

    A client may come with an older id, from before another request moved the session.
    """
    actual = ctx.topology.node_of_digest(record.home)
    if actual is None or actual == home:
        return home
    state.session_id = state.session_id.with_node(actual or None)
    return actual


def leave_home(ctx: Context, state: SessionState, home: str | None, *, is_lost: bool) -> bool:
    """Move the session to the best node that is up, if its home is lost, or drains; return whether it moves.

    From one that drains it moves to a better one only, not to and fro between those that drain while no other is up.
    """
    if not is_lost and home not in ctx.topology.draining:
        return False
    ranked = ctx.topology.ranked(state.session_id.plain, ctx.health.is_up)
    others = [node for node in ranked if node != home]
    if not others or (home in ranked and not is_lost):
        return False
    move_home(ctx, state, others[0])
    return True


def move_home(ctx: Context, state: SessionState, new_home: str) -> None:
    """Give the session's id the node new_home; it is stored there at the next save, changed or not."""
    old_home = ctx.topology.home(state.session_id.node)
    state.session_id = state.session_id.with_node(new_home or None)
    state.must_store = True
    if state.stored is None or old_home is None:  # the id may be from an outage, before the session had a node
        return
    state.moved_from = old_home
    ctx.counters.add("relocated")
    what = f"moves from node {ctx.label(old_home)} to {ctx.label(new_home)}"
    ctx.tell_session("relocated", state.session_id, what, node=new_home)
