"""`flask msm …`: what operators ask of an application's sessions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from msm_fast.engine.context import digest
from msm_fast.errors import MsmError
from msm_fast.integrations.operating import end_session, find_session, kind_and_value, moment, readable
from msm_fast.manager import SessionManager
from msm_fast.session import Session

__all__ = ["commands"]

commands = AppGroup("msm", help="Look at the sessions in memcached.")

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


@commands.command("status")
@_AS_JSON
def show_status(as_json: bool) -> None:
    """Say how many nodes answer; the exit status is 1 if not all do. Workers may have been stopped all the same."""
    manager = _manager()
    nodes = manager.ask_nodes()
    up = sum(node.is_up for node in nodes)
    state = manager.distribution.state.name.lower()
    _write({"state": state, "nodes": len(nodes), "nodes_up": up}, as_json)
    if up < len(nodes):
        raise SystemExit(1)


@commands.command("nodes")
@_AS_JSON
def show_nodes(as_json: bool) -> None:
    """List the nodes, and whether each answers."""
    manager = _manager()
    nodes = manager.ask_nodes()
    if as_json:
        click.echo(json.dumps([asdict(node) for node in nodes]))
        return
    if not nodes:
        click.echo("there are no nodes: sessions are kept on this host")
    for node in nodes:
        role = "failover" if node.is_failover else "primary"
        health = "up" if node.is_up else f"down: {node.last_failure}"
        click.echo(f"{node.node_id}\t{node.address}\t{role}\t{health}")


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
    _write(_description(session, with_values=values), as_json)


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


def _description(session: Session, *, with_values: bool) -> dict[str, Any]:
    return {
        "session": digest(session.state.session_id),
        "node": session.state.session_id.node,
        "generation": session.generation,
        "created_at": moment(session.created_at),
        "accessed_at": moment(session.accessed_at),
        "max_inactive": session.max_inactive,
        "attributes": {
            name: kind_and_value(value) if with_values else type(value).__qualname__
            for name, value in sorted(session.items())
        },
    }


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
