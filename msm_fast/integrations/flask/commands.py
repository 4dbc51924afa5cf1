"""`flask msm …`: what operators ask of an application's sessions."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

import click
from flask import current_app
from flask.cli import AppGroup

from msm_fast.engine.context import digest
from msm_fast.errors import MsmError
from msm_fast.manager import SessionManager
from msm_fast.session import Session
from msm_fast.statistics import NodeStatus

__all__ = ["commands"]

commands = AppGroup("msm", help="Look at the sessions in memcached.")

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Write JSON.")


@commands.command("status")
@_AS_JSON
def show_status(as_json: bool) -> None:
    """Say whether sessions are distributed; the exit status is 1 if not all nodes answer."""
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
    session = _load(_manager(), session_id)
    _write(_description(session, with_values=values), as_json)


@commands.command("delete")
@click.argument("session_id")
@click.confirmation_option("--yes", prompt="End this session?")
def delete_session(session_id: str) -> None:
    """End a session: whoever has its cookie is logged out."""
    manager = _manager()
    session = _load(manager, session_id)
    name = _digest(session)
    try:
        manager.invalidate(session)
    except MsmError as error:
        raise click.ClickException(str(error)) from error
    silent = _silent(manager.nodes())
    if silent:
        raise click.ClickException(
            f"session {name} may live on where it could not be deleted: no answer from {silent}. This process ends now "
            "and tells them nothing later: delete it again when they are back"
        )
    click.echo(f"session {name} is ended")


def _manager() -> SessionManager:
    manager: SessionManager = current_app.extensions["msm_fast"]
    return manager


def _load(manager: SessionManager, session_id: str) -> Session:
    try:
        session = manager.load(session_id)
    except MsmError as error:
        raise click.ClickException(str(error)) from error
    if session is None or session.state.local_kind == "provisional":
        raise click.ClickException(_reason(manager, session))
    return session


def _reason(manager: SessionManager, stand_in: Session | None) -> str:
    """Return why there is no session to be shown. stand_in: an empty one that would serve a request in its place."""
    silent = _silent(manager.ask_nodes())
    if silent:
        return f"whether there is such a session cannot be told: no answer from {silent}"
    return "no such session was found" if stand_in is None else "the session could not be had; try again"


def _silent(nodes: list[NodeStatus]) -> str:
    """Return the names of the nodes that do not answer."""
    return ", ".join(node.node_id or node.address for node in nodes if not node.is_up)


def _digest(session: Session) -> str:
    return digest(session.state.session_id)


def _description(session: Session, *, with_values: bool) -> dict[str, Any]:
    return {
        "session": _digest(session),
        "node": session.state.session_id.node,
        "generation": session.generation,
        "created_at": _time(session.created_at),
        "accessed_at": _time(session.accessed_at),
        "max_inactive": session.max_inactive,
        "attributes": {
            name: f"{type(value).__qualname__} {value!r}" if with_values else type(value).__qualname__
            for name, value in sorted(session.items())
        },
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def _write(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for inner, text in value.items():
                click.echo(f"  {_printable(inner)}: {text}")
        else:
            click.echo(f"{name}: {value}")


def _printable(name: str) -> str:
    """Return name as it is, or with escapes if it would do something to a terminal: clients may have chosen it."""
    return name if name.isprintable() else repr(name)
