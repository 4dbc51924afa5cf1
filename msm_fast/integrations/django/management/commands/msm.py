"""The command `manage.py msm`: what operators ask of the sessions."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from msm_fast.engine.context import digest
from msm_fast.errors import MsmError
from msm_fast.integrations.django.managers import process_manager
from msm_fast.session import Session

__all__ = ["Command"]


class Command(BaseCommand):
    """status, nodes, inspect, delete. The exit status is 1 if something is amiss."""

    help = "Shows the nodes that keep the sessions, and shows or ends one session. A session's values are never shown."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the subcommands."""
        tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
        for name, help_text in (
            ("status", "where sessions are kept, in one line; fails if a node is down"),
            ("nodes", "each node, its address and whether it answers; fails if one does not"),
            ("inspect", "a session's times, size and the names and types of what it holds"),
            ("delete", "end a session: its client is logged out"),
        ):
            task = tasks.add_parser(name, help=help_text)
            task.add_argument("--json", action="store_true", help="for programs")
            if name in ("inspect", "delete"):
                task.add_argument("session_key", help="the value of the session cookie")

    def handle(self, *_: object, **options: Any) -> None:
        """Carry out one task."""
        try:
            report, is_well = getattr(self, f"_{options['task']}")(options.get("session_key"))
        except MsmError as error:
            raise CommandError(str(error)) from error
        if options["json"]:
            self.stdout.write(json.dumps(report))
        else:
            for row in report if isinstance(report, list) else [report]:
                self.stdout.write("  ".join(f"{name}: {_as_text(value)}" for name, value in row.items()))
        if not is_well:
            raise CommandError("something is amiss: see above")

    def _status(self, _: None) -> tuple[dict[str, Any], bool]:
        manager = process_manager()
        nodes = manager.ask_nodes()
        n_up = sum(node.is_up for node in nodes)
        report = {"state": manager.distribution.state.value, "nodes": len(nodes), "up": n_up}
        return report, n_up == len(nodes)

    def _nodes(self, _: None) -> tuple[list[dict[str, Any]], bool]:
        nodes = process_manager().ask_nodes()
        report = [
            {
                "node": node.node_id,
                "address": node.address,
                "state": "up" if node.is_up else "down",
                "failover": node.is_failover,
                "failure": "" if node.is_up else node.last_failure,
            }
            for node in nodes
        ]
        return report, all(node.is_up for node in nodes)

    def _inspect(self, session_key: str) -> tuple[dict[str, Any], bool]:
        session, _ = _ask_for(session_key)
        if session is None or session.state.local_kind == "provisional":
            raise CommandError(_UNASKED)
        return {
            "session": digest(session.state.session_id),
            "node": session.state.session_id.node,
            "created": _moment(session.created_at),
            "accessed": _moment(session.accessed_at),
            "max_inactive": session.max_inactive,
            "absolute_lifetime": session.absolute_lifetime,
            "generation": session.generation,
            "bytes": len(session.state.body),
            "holds": {name: type(value).__name__ for name, value in session.items()},
        }, True

    def _delete(self, session_key: str) -> tuple[dict[str, Any], bool]:
        manager = process_manager()
        session, have_answered = _ask_for(session_key)
        is_kept_in_file = manager.settings.local_store != "memory"  # and outlives this process
        if session is None or (_is_out_of_reach(session, have_answered) and not is_kept_in_file):
            raise CommandError(f"{_UNASKED}. It is not ended")
        name, result = digest(session.state.session_id), manager.invalidate(session).status
        if _is_out_of_reach(session, have_answered):
            raise CommandError(f"{_UNASKED}. It will be ended when the nodes are back")
        silent = [node.node_id for node in manager.nodes() if not node.is_up]
        if silent:
            raise CommandError(
                f"the session is ended, but {', '.join(silent)} could not be told and may serve it again for a while"
            )
        return {"session": name, "result": result}, True


_UNASKED = (
    "the cluster could not be asked for this session, or what it has could not be read. The session may well exist; "
    "`manage.py msm nodes` shows which nodes answer"
)


def _ask_for(session_key: str) -> tuple[Session | None, bool]:
    """Return the session, if anything is known of it, and whether all nodes have answered.

    Raises: CommandError: there is none for certain.
    """
    manager = process_manager()
    manager.ask_nodes()  # one that hangs is down then
    n_failures = manager.statistics().node_failures
    session = manager.load(session_key)
    have_answered = all(node.is_up for node in manager.nodes()) and manager.statistics().node_failures == n_failures
    if session is None and have_answered:
        raise CommandError("there is no session of this key; it has expired, was ended, or never was")
    return session, have_answered


def _is_out_of_reach(session: Session, have_answered: bool) -> bool:
    """Whether the session is only what this host knows of one in the cluster."""
    return session.state.local_kind == "provisional" or (session.is_local and not have_answered)


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{_readable(name)} ({kind})" for name, kind in value.items()) or "nothing"
    return "never" if value is None else str(value)


def _readable(name: str) -> str:
    """Return the name as it is, or escaped if a terminal would obey it: who visits the site may have chosen it."""
    return name if name.isprintable() else repr(name)
