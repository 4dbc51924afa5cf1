"""Attributes to bytes and back, and what happens when one of them cannot be, or the whole session is too large."""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from typing import NoReturn

from msm_fast._core.attributes import AttributeMap
from msm_fast._core.record import value_sizes
from msm_fast._core.serializers import AttributeFailure
from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import TELL_AGAIN_S, Context, digest
from msm_fast.errors import SerializationError, SessionTooLarge
from msm_fast.policies import DistributionState
from msm_fast.session import SessionState

__all__ = ["StaysLocal", "decode_attributes", "encode_attributes", "fit_item", "refuse"]

_NULL_SIZE = 1
_NAMED_AT_ONCE = 3


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


def decode_attributes(ctx: Context, session_id: SessionId, body: bytes) -> AttributeMap:
    """Return the attributes in the body of a record.

    One that cannot be decoded shows when it is read: it is told, and reads as None; what is stored of it stays until
    another value takes its place.
    Raises: CorruptRecord if the body is not made of frames.
    """
    return AttributeMap.decode(body, serializer=ctx.serializers, on_failure=partial(ctx.tell_undecodable, session_id))


def encode_attributes(ctx: Context, state: SessionState) -> bytes:
    """Return the encoded attributes, few enough for an item; the very bytes that were loaded if none changed.

    What settings.attribute_filter does not match is left out.
    Raises: SerializationError, SessionTooLarge or StaysLocal by settings.on_unserializable. With "blacklist" that is
        SessionTooLarge only, if the names of the attributes alone are too large.
    """
    nulls = ctx.blacklist.types_by_name() if ctx.settings.on_unserializable == "blacklist" else None
    body, failures = state.attributes.encode(keep=ctx.keeps_attribute, nulls=nulls)
    if failures and nulls is None:
        refuse(ctx, _unserializable(state, failures[0]), body, len(failures))
    for failure in failures:
        _black_list(ctx, state, failure)
    return body if body is state.body else fit_item(ctx, state, body)


def fit_item(ctx: Context, state: SessionState, body: bytes) -> bytes:
    """Return the encoded attributes, or as many of them as the nodes take in one item.

    A node tells its limit when it is first met, which may be after the attributes were encoded.
    Raises: as encode_attributes.
    """
    limit = ctx.item_limits.record_bytes(ctx.topology.nodes)
    if len(body) + ctx.records.overhead <= limit:
        return body
    size = ctx.records.size(body)
    if size <= limit:
        return body
    name = digest(state.session_id)
    error = SessionTooLarge(
        f"session {name} is {size:,} bytes, over the {limit:,} that each node takes, 1 MiB with its header at most; "
        "what is stored stays as it was. Keep large data elsewhere and its key in the session",
        size=size,
        limit=limit,
        session=name,
    )
    if ctx.settings.on_unserializable != "blacklist":
        refuse(ctx, error, body)
    return _null_largest(ctx, state, body, error)


def refuse(ctx: Context, error: SerializationError | SessionTooLarge, body: bytes, n_attributes: int = 1) -> NoReturn:
    """Apply settings.on_unserializable, other than "blacklist". body: the attributes that can be encoded.

    Raises: error if the application is to stop, else StaysLocal. A session that stays local is told once.
    """
    policy = ctx.settings.on_unserializable
    if policy == "stop_application":
        ctx.counters.add("unserializable", n_attributes)
        ctx.tell("unserializable", str(error), session=error.session)
        ctx.is_stopped = True
        ctx.tell("application_stopped", f"no further session is served: {error}", session=error.session)
        raise error
    tags_session = policy == "local_session"
    is_stopped = not tags_session and ctx.state() is DistributionState.STOPPED
    if not is_stopped and ctx.is_first_time(error.session):
        consequence = "The session is kept in this process only" if tags_session else "No session is distributed now"
        ctx.counters.add("unserializable", n_attributes)
        ctx.tell("unserializable", f"{error}. {consequence}", session=error.session)
    raise StaysLocal(str(error), body, tags_session=tags_session) from error


def _unserializable(state: SessionState, failure: AttributeFailure) -> SerializationError:
    name = digest(state.session_id)
    error = SerializationError(
        f"session {name}: attribute {failure.name!r} of type {failure.type_name} cannot be stored: {failure.cause}. "
        "Put a storable value there, or teach the library the type with register_type()",
        session=name,
        attribute=failure.name,
        type_name=failure.type_name,
    )
    error.__cause__ = failure.cause  # whose traceback leads to what the application has registered
    return error


def _black_list(ctx: Context, state: SessionState, failure: AttributeFailure) -> None:
    """Tell an attribute that was written as null, and put it on the black list if it is its type that is at fault.

    A list with one odd element, or a text with a lone surrogate, says nothing about the next list or text under that
    name: on the list it would cost every session that attribute.
    """
    if not failure.is_type_known and ctx.blacklist.add(failure.name, failure.type_name):
        ctx.counters.add("blacklisted")
        ctx.tell(
            "blacklisted",
            f"attribute {failure.name!r} of type {failure.type_name} is on the black list now: it is stored as null in "
            f"every session. Take it off with manager.blacklist.remove({failure.name!r}, {failure.type_name!r}) when "
            "such values can be stored",
        )
    _tell_null(ctx, failure.name, _unserializable(state, failure), f"attribute {failure.name!r}")


def _null_largest(ctx: Context, state: SessionState, body: bytes, error: SessionTooLarge) -> bytes:
    """Return body with null in place of the largest attributes, as many as it takes.

    First of those that this request has set or changed: what is stored already, and fitted, is not at fault.
    """
    sizes = value_sizes(body)
    changed, _ = state.attributes.changed_names()
    largest = sorted(sizes, key=lambda name: (name not in changed, -sizes[name]))
    candidates = [name for name in largest if sizes[name] > _NULL_SIZE]

    def fits(n: int) -> bool:
        return ctx.records.size(state.attributes.null_out(body, candidates[:n])) <= error.limit

    n_needed = bisect_left(range(len(candidates) + 1), True, key=fits)
    if n_needed > len(candidates):
        raise error
    nulled = candidates[:n_needed]
    some = ", ".join(f"attribute {name!r} of {sizes[name]:,} bytes" for name in nulled[:_NAMED_AT_ONCE])
    more = len(nulled) - _NAMED_AT_ONCE
    _tell_null(ctx, nulled[0], error, f"{some} and {more} more" if more > 0 else some, len(nulled))
    return state.attributes.null_out(body, nulled)


def _tell_null(ctx: Context, attribute: str, error: SerializationError, what: str, n: int = 1) -> None:
    if ctx.is_first_time((error.session, attribute), TELL_AGAIN_S):
        ctx.counters.add("unserializable", n)
        ctx.tell("unserializable", f"{error}. Stored as null for now: {what}", session=error.session)
