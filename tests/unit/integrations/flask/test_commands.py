"""`flask msm …`, for operators."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, session
from flask.testing import FlaskClient

from msm_fast.integrations.flask import MsmFast
from tests.unit.integrations.flask.shop import cookie_of


def run(app: Flask, *arguments: str, **options: Any) -> Any:
    return app.test_cli_runner().invoke(args=["msm", *arguments], **options)


def test_inspect_shows_names_and_types_and_no_id(app: Flask, client: FlaskClient) -> None:
    client.post("/in")
    result = run(app, "inspect", cookie_of(client))
    assert result.exit_code == 0
    assert "user: str" in result.output
    assert "ada" not in result.output
    assert cookie_of(client) not in result.output
    assert "ada" in run(app, "inspect", "--values", cookie_of(client)).output


def test_inspect_lets_no_name_write_to_the_terminal(app: Flask, client: FlaskClient) -> None:
    @app.post("/set")
    def set_all() -> str:
        session["a\x1b[2J\nnode: evil"] = "\x1b[31m"
        session["naïve \\ name"] = 2
        return "set"

    client.post("/set")
    output = run(app, "inspect", "--values", cookie_of(client), color=True).output
    assert "  'a\\x1b[2J\\nnode: evil': str '\\x1b[31m'\n" in output
    assert "  naïve \\ name: int 2\n" in output
    assert "\x1b" not in output


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_inspect_says_why_a_value_cannot_be_shown_and_shows_the_others(
    app: Flask, client: FlaskClient, options: list[str]
) -> None:
    @app.post("/set")
    def set_all() -> str:
        session["big"] = [10**5000]  # no text is made of so many digits
        session["user"] = "ada"
        return "set"

    client.post("/set")
    result = run(app, "inspect", "--values", *options, cookie_of(client))
    assert result.exit_code == 0
    assert "list, which cannot be shown: Exceeds the limit (4300" in result.output
    assert "str 'ada'" in result.output


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["text", "json"])
def test_inspect_shows_times_after_the_year_9999(app: Flask, client: FlaskClient, options: list[str]) -> None:
    client.post("/in")
    manager = app.extensions["msm_fast"]
    kept = manager.load(cookie_of(client))
    kept.state.created_ms = 2**62 - 1  # as somebody may have forged it
    kept["user"] = "bob"
    manager.save(kept)
    result = run(app, "inspect", *options, cookie_of(client))
    assert (result.exit_code, "146140482-" in result.output) == (0, True)


def test_delete_asks_and_then_ends_the_session(app: Flask, client: FlaskClient) -> None:
    client.post("/count")
    assert run(app, "delete", cookie_of(client), input="n\n").exit_code == 1
    assert client.get("/read").text == "1"
    result = run(app, "delete", "--yes", cookie_of(client))
    assert (result.exit_code, cookie_of(client) in result.output) == (0, False)
    assert client.get("/read").text == "0"


@pytest.mark.parametrize("command", [["inspect"], ["delete", "--yes"]])
def test_a_session_that_does_not_exist_is_said_to(app: Flask, command: list[str]) -> None:
    result = run(app, *command, "0" * 32)
    assert result.exit_code == 1
    assert "no such session" in result.output


@pytest.mark.parametrize("command", [["inspect"], ["delete", "--yes"]])
def test_what_is_no_key_at_all_is_told_from_a_session_that_may_exist(command: list[str]) -> None:
    app = Flask("shop")
    app.config["MSM_FAST"] = {"nodes": "n1:127.0.0.1:1"}
    MsmFast(app)
    result = run(app, *command, "c9ba9606b370")
    assert result.exit_code == 1
    assert "no session key" in result.output
    assert "may exist" not in result.output


def test_status_and_nodes_tell_of_a_local_application(app: Flask) -> None:
    assert run(app, "status").output == "state: local\nnodes: 0\nnodes_up: 0\n"
    assert run(app, "nodes").output == "there are no nodes: sessions are kept on this host\n"
    assert run(app, "nodes", "--json").output == "[]\n"
