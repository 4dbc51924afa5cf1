"""What happens when an attribute cannot be encoded, or the whole session is too large."""

from __future__ import annotations

from msm_fast.engine.context import Context, digest
from msm_fast.errors import SerializationError, SessionTooLarge
from msm_fast.session import SessionState

__all__ = ["StaysLocal", "encode_attributes", "refuse"]


class StaysLocal(Exception):
    """A session cannot be stored in the cluster, and by policy is kept in this process.

    reason: the sentence to log. body: the attributes that can be encoded. tags_session: it stays here for good;
    otherwise distribution is to be stopped for all.
    """

    def __init__(self, reason: str, body: bytes, *, tags_session: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.body = body
        self.tags_session = tags_session


def encode_attributes(ctx: Context, state: SessionState) -> bytes:
    """Return the encoded attributes; the very bytes that were loaded if none changed.

    Raises: SerializationError by policy.
    """
    body, failures = state.attributes.encode()
    if failures:
        ctx.counters.add("unserializable", len(failures))
        first = failures[0]
        name = digest(state.session_id)
        refuse(
            ctx,
            SerializationError(
                f"session {name}: attribute {first.name!r} of type {first.type_name} cannot be stored: {first.cause}. "
                "Put a storable value there, or teach the library the type with register_type()",
                session=name,
                attribute=first.name,
                type_name=first.type_name,
            ),
        )
    return body


def refuse(ctx: Context, error: SerializationError | SessionTooLarge) -> None:
    """Apply settings.on_unserializable, which in this version is always "stop_application"."""
    ctx.tell("unserializable", str(error), session=error.session)
    ctx.is_stopped = True
    ctx.tell("application_stopped", f"no further session is served: {error}", session=error.session)
    raise error
