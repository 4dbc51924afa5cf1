"""flask msm over real memcached, while nodes do not answer, and for a sticky session."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient

from msm_fast import SessionId
from tests.integration.conftest import Nodes
from tests.integration.test_flask import app, client, cookie_of, make, meeting
from tests.timeouts import HURRIED

__all__ = ["app", "client", "make", "meeting"]

pytestmark = pytest.mark.memcached


@pytest.mark.parametrize("failure", ["down", "hanging"])
def test_status_and_nodes_tell_of_a_node_that_does_not_answer(
    make: Callable[..., Flask], nodes: Nodes, failure: str
) -> None:
    run = make(timeouts=HURRIED).test_cli_runner().invoke
    assert run(args=["msm", "status"]).exit_code == 0
    if failure == "down":
        nodes["n2"].kill()
    else:
        nodes["n2"].pause()
    status = run(args=["msm", "status"])
    assert (status.exit_code, status.output) == (1, "state: degraded\nnodes: 3\nnodes_up: 2\n")
    listed = run(args=["msm", "nodes"])
    assert listed.exit_code == 1
    states = [line.split("\t")[3].partition(":")[0] for line in listed.output.splitlines()]
    assert states == ["up", "down", "up"]


def fail(nodes: Nodes, failure: str, *names: str) -> None:
    for name in names:
        nodes[name].kill() if failure == "down" else nodes[name].pause()


def test_status_finds_every_node_that_hangs(make: Callable[..., Flask], nodes: Nodes) -> None:
    run = make(timeouts=HURRIED).test_cli_runner().invoke
    fail(nodes, "hanging", "n1", "n2", "n3")
    status = run(args=["msm", "status"])
    assert (status.exit_code, status.output) == (1, "state: local\nnodes: 3\nnodes_up: 0\n")


@pytest.mark.parametrize("failure", ["down", "hanging"])
@pytest.mark.parametrize("command", [["inspect"], ["delete", "--yes"]])
def test_of_a_session_that_no_node_was_there_to_be_asked_for_nobody_says_that_there_is_none(
    make: Callable[..., Flask], nodes: Nodes, client: FlaskClient, failure: str, command: list[str]
) -> None:
    client.post("/in")
    run = make(timeouts=HURRIED).test_cli_runner().invoke
    fail(nodes, failure, "n1", "n2", "n3")
    result = run(args=["msm", *command, cookie_of(client)])
    assert (result.exit_code, "no such session" in result.output) == (1, False)
    assert "no answer from n1, n2, n3" in result.output


@pytest.mark.parametrize("failure", ["down", "hanging"])
def test_nor_of_one_that_a_node_without_an_answer_may_have(
    make: Callable[..., Flask], nodes: Nodes, failure: str
) -> None:
    unknown = str(SessionId.generate("n1"))
    assert "no such session" in make().test_cli_runner().invoke(args=["msm", "inspect", unknown]).output
    fail(nodes, failure, "n2")
    result = make(timeouts=HURRIED).test_cli_runner().invoke(args=["msm", "inspect", unknown])
    assert (result.exit_code, "no such session" in result.output) == (1, False)
    assert "no answer from n2" in result.output


@pytest.mark.parametrize("failure", ["down", "hanging"])
def test_delete_says_which_nodes_it_could_not_tell(
    make: Callable[..., Flask], nodes: Nodes, client: FlaskClient, failure: str
) -> None:
    client.post("/in")
    home = cookie_of(client).partition("-")[2]
    run = make(timeouts=HURRIED).test_cli_runner().invoke
    fail(nodes, failure, home)
    result = run(args=["msm", "delete", "--yes", cookie_of(client)])
    assert (result.exit_code, "is ended" in result.output) == (1, False)
    assert f"no answer from {home}" in result.output


def test_delete_says_that_a_worker_may_show_a_sticky_session_for_a_while(make: Callable[..., Flask]) -> None:
    sticky = make(sticky=True, route="w1", backup="sync")
    client = sticky.test_client()
    client.post("/set/before")
    run = make(sticky=True).test_cli_runner().invoke
    result = run(args=["msm", "delete", "--yes", cookie_of(client)])
    assert client.get("/everything").json == {"before": True}
    assert result.exit_code == 1
    assert "is ended in the cluster" in result.output
    client.post("/set/after")
    assert client.get("/everything").json == {}
