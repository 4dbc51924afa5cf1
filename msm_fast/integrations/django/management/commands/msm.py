"""The command `manage.py msm`: what operators ask of the sessions."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from msm_fast.errors import MsmError
from msm_fast.integrations.django.managers import process_manager
from msm_fast.integrations.operating import (
    cluster_report,
    end_session,
    find_session,
    node_reports,
    readable,
    session_report,
)

__all__ = ["Command"]


class Command(BaseCommand):
    """status, nodes, inspect, delete. The exit status is 1 if something is amiss."""

    help = "Shows the nodes that keep the sessions, and shows or ends one session. A session's values are never shown."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Declare the subcommands."""
        tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
        for name, help_text in (
            ("status", "how many nodes answer this command, in one line; fails if one does not"),
            ("nodes", "each node, its address and whether it answers; fails if one does not"),
            ("inspect", "a session's times, size and the names and types of what it holds; extends its life"),
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
        return cluster_report(process_manager())

    def _nodes(self, _: None) -> tuple[list[dict[str, Any]], bool]:
        return node_reports(process_manager())

    def _inspect(self, session_key: str) -> tuple[dict[str, Any], bool]:
        return session_report(find_session(process_manager(), session_key)), True

    def _delete(self, session_key: str) -> tuple[dict[str, Any], bool]:
        name, result = end_session(process_manager(), session_key)
        return {"session": name, "result": result}, True


def _as_text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{readable(name)} ({kind})" for name, kind in value.items()) or "nothing"
    return "never" if value is None else str(value)
