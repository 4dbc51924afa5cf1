"""`flask msm …`: what operators ask of an application's sessions."""

from __future__ import annotations

import json
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from msm_fast.errors import MsmError
from msm_fast.integrations.operating import (
    cluster_report,
    end_session,
    find_session,
    node_reports,
    readable,
    session_report,
)
from msm_fast.manager import SessionManager

__all__ = ["commands"]

commands = AppGroup("msm", help="Look at the sessions in memcached.")

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


@commands.command("status")
@_AS_JSON
def show_status(as_json: bool) -> None:
    """Say how many nodes answer; the exit status is 1 if not all do. Workers may have been stopped all the same."""
    report, is_well = cluster_report(_manager())
    _write(report, as_json)
    _exit(is_well)


@commands.command("nodes")
@_AS_JSON
def show_nodes(as_json: bool) -> None:
    """List the nodes, and whether each answers; the exit status is 1 if one does not."""
    reports, is_well = node_reports(_manager())
    if as_json:
        click.echo(json.dumps(reports))
    elif not reports:
        click.echo("there are no nodes: sessions are kept on this host")
    else:
        for node in reports:
            failure = f": {node['failure']}" if node["failure"] else ""
            click.echo(f"{node['node']}\t{node['address']}\t{node['role']}\t{node['state']}{failure}")
    _exit(is_well)


@commands.command("inspect")
@click.argument("session_id")
@click.option("--values", is_flag=True, help="Show the values too; they may be secret.")
@_AS_JSON
def inspect_session(session_id: str, values: bool, as_json: bool) -> None:
    """Show what a session holds: its attributes' names and types. Its life is extended as by a request."""
    try:
        session = find_session(_manager(), session_id)
    except MsmError as error:
        raise click.ClickException(str(error)) from error
    _write(session_report(session, with_values=values), as_json)


@commands.command("delete")
@click.argument("session_id")
@click.confirmation_option("--yes", prompt="End this session?")
def delete_session(session_id: str) -> None:
    """End a session: whoever has its cookie is logged out."""
    try:
        name, _ = end_session(_manager(), session_id)
    except MsmError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"session {name} is ended")


def _manager() -> SessionManager:
    manager: SessionManager = current_app.extensions["msm_fast"]
    return manager


def _exit(is_well: bool) -> None:
    if not is_well:
        raise SystemExit(1)


def _write(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for inner, text in value.items():
                click.echo(f"  {readable(inner)}: {text}")
        else:
            click.echo(f"{name}: {value}")
