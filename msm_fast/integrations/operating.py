"""What operators ask of nodes and sessions by a framework's command: an answer that holds, or why there is none."""

from __future__ import annotations

import time
from typing import Any

from msm_fast._core.session_id import SessionId
from msm_fast.engine.context import digest
from msm_fast.errors import MsmError
from msm_fast.manager import SessionManager
from msm_fast.session import Session

__all__ = [
    "NoAnswer",
    "cluster_report",
    "end_session",
    "find_session",
    "node_reports",
    "readable",
    "session_report",
]

_NO_KEY = "this is no session key, which is the value of a client's cookie; what the log calls a session is none"
_UNKNOWN = "no such session: there is no session of this key; it has expired, was ended, or never was"


class NoAnswer(MsmError):
    """What the operator wanted was not done, or is not certain; the message says why and what comes of it."""


def cluster_report(manager: SessionManager) -> tuple[dict[str, Any], bool]:
    """Return how many nodes answer this process, and whether all do."""
    nodes = manager.ask_nodes()
    n_up = sum(node.is_up for node in nodes)
    return {"state": manager.distribution.state.value, "nodes": len(nodes), "nodes_up": n_up}, n_up == len(nodes)


def node_reports(manager: SessionManager) -> tuple[list[dict[str, Any]], bool]:
    """Return of each node how it answers this process, and whether all do."""
    nodes = manager.ask_nodes()
    reports = [
        {
            "node": node.node_id,
            "address": node.address,
            "role": "failover" if node.is_failover else "primary",
            "state": "up" if node.is_up else "down",
            "failure": "" if node.is_up else node.last_failure,
        }
        for node in nodes
    ]
    return reports, all(node.is_up for node in nodes)


def session_report(session: Session, *, with_values: bool = False) -> dict[str, Any]:
    """Return what a session is; of its attributes the names and types, and the values if they are wanted."""
    describe = _kind_and_value if with_values else _kind
    return {
        "session": digest(session.state.session_id),
        "node": session.state.session_id.node,
        "created": _moment(session.created_at),
        "accessed": _moment(session.accessed_at),
        "max_inactive": session.max_inactive,
        "absolute_lifetime": session.absolute_lifetime,
        "generation": session.generation,
        "bytes": len(session.state.body),
        "attributes": {name: describe(value) for name, value in sorted(session.items())},
    }


def find_session(manager: SessionManager, key: str) -> Session:
    """Return the session, as a request would be served it, which extends its life.

    Raises: NoAnswer, also where it may well be stored but could not be asked for; SessionUnavailable.
    """
    session, has_everybody_answered = _ask_for(manager, key)
    if session is None or session.state.local_kind == "provisional":
        raise NoAnswer(_UNKNOWN if session is None and has_everybody_answered else _unasked(manager))
    return session


def end_session(manager: SessionManager, key: str) -> tuple[str, str]:
    """End the session; return its name in the log, and the status of the save.

    Raises: NoAnswer if there is none, if not all nodes that may have it were told, and if it is a sticky one, which the
    worker that has it in memory serves for a while; SessionUnavailable.
    """
    session, has_everybody_answered = _ask_for(manager, key)
    if session is None:
        raise NoAnswer(_UNKNOWN if has_everybody_answered else f"{_unasked(manager)}. It is not ended")
    is_stand_in = session.state.local_kind == "provisional" or (session.is_local and not has_everybody_answered)
    if is_stand_in and manager.settings.local_store == "memory":  # which ends with this process
        raise NoAnswer(f"{_unasked(manager)}. It is not ended")
    name, status = digest(session.state.session_id), manager.invalidate(session).status
    if is_stand_in:
        raise NoAnswer(f"{_unasked(manager)}. It will be ended when the nodes are back")
    silent = _silent(manager)
    if silent:
        raise NoAnswer(
            f"session {name} may live on where its end could not be told: no answer from {silent}. This process ends "
            "now and tells them nothing later: delete it again when they are back"
        )
    if manager.settings.sticky:
        raise NoAnswer(
            f"session {name} is ended in the cluster. A worker that has it in memory goes on showing it until a "
            "request changes it there, or a tenth of its lifetime has gone since its copies were last looked at: to "
            "end it at once, restart that worker"
        )
    return name, status


def readable(name: str) -> str:
    """Return an attribute's name as it is, or escaped if a terminal would obey it: a client may have chosen it."""
    return name if name.isprintable() else repr(name)


def _kind(value: object) -> str:
    return type(value).__qualname__


def _kind_and_value(value: object) -> str:
    """Return an attribute's type and value, or why its value cannot be shown, as that of an int of 5,000 digits."""
    try:
        return f"{_kind(value)} {value!r}"
    except Exception as error:  # noqa: BLE001 - of a type that was registered it may be any
        return f"{_kind(value)}, which cannot be shown: {readable(str(error))}"


def _moment(seconds: float) -> str:
    """Return the time, in UTC, that is as long after 1970; a forged one may be in a year that no datetime has."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _ask_for(manager: SessionManager, key: str) -> tuple[Session | None, bool]:
    """Return the session, if anything is known of it, and whether all nodes have answered. Raises: NoAnswer."""
    if SessionId.parse_issued(key) is None:
        raise NoAnswer(_NO_KEY)
    manager.ask_nodes()  # one that hangs is down then
    n_failures = manager.statistics().node_failures
    session = manager.load(key)
    return session, not _silent(manager) and manager.statistics().node_failures == n_failures


def _unasked(manager: SessionManager) -> str:
    silent = _silent(manager)
    reason = f"no answer from {silent}" if silent else "what was stored could not be read; try again"
    return f"the cluster could not be asked for the session, which may exist: {reason}"


def _silent(manager: SessionManager) -> str:
    """Return the names of the nodes that do not answer."""
    return ", ".join(node.node_id or node.address for node in manager.nodes() if not node.is_up)
