"""manage.py msm, with nodes in real memcached."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.adversity.proxy import FaultProxy
from tests.django_site import Site, serve
from tests.integration.conftest import Nodes
from tests.integration.test_django import elsewhere, in_ways, proxies, site, with_session
from tests.timeouts import HURRIED, UNHURRIED

__all__ = ["proxies", "site"]

pytestmark = pytest.mark.memcached


UNKNOWN = "0123456789abcdef0123456789abcdef-n1"


def msm(*arguments: str) -> Any:
    """Return what the command writes, None for nothing, and what it calls an error."""
    out = io.StringIO()
    error = None
    try:
        call_command("msm", *arguments, "--json", stdout=out)
    except CommandError as raised:
        error = str(raised)
    return json.loads(out.getvalue() or "null"), error


@in_ways(["threads"], timeouts=HURRIED)
def test_the_command_shows_which_nodes_answer(site: Site, nodes: Nodes) -> None:
    assert msm("status") == ({"state": "distributed", "nodes": 2, "nodes_up": 2}, None)
    nodes["n1"].kill()
    nodes["n2"].pause()
    shown, error = msm("nodes")
    assert [(node["node"], node["state"]) for node in shown] == [("n1", "down"), ("n2", "down")]
    assert error is not None
    assert msm("status")[0]["nodes_up"] == 0


@in_ways(["threads"])
def test_the_command_shows_and_ends_a_session(site: Site) -> None:
    browser = with_session(site)
    shown, _ = msm("inspect", browser.cookie or "")
    assert shown["attributes"] == {"user": "str"}
    assert shown["node"] in ("n1", "n2")
    msm("delete", browser.cookie or "")
    assert browser.read() == {}


@pytest.mark.parametrize("task", ["inspect", "delete"])
@in_ways(["threads"])
def test_an_unknown_session_is_called_so_where_all_nodes_answer(site: Site, task: str) -> None:
    assert "no session of this key" in msm(task, UNKNOWN)[1]


@pytest.mark.parametrize("task", ["inspect", "delete"])
@pytest.mark.parametrize("silent", [["n1"], ["n2"], ["n1", "n2"]])
@pytest.mark.parametrize("how", ["refuse", "black_hole"])
@in_ways(["threads"], timeouts=HURRIED)
def test_a_session_is_never_called_unknown_while_a_node_is_silent(
    site: Site, proxies: dict[str, FaultProxy], how: str, silent: list[str], task: str
) -> None:
    for name in silent:
        getattr(proxies[name], how)()
    shown, error = msm(task, UNKNOWN)
    assert shown is None
    assert "could not be asked" in error
    assert ("not ended" in error) == (task == "delete")


@in_ways(["threads"], timeouts=HURRIED)
def test_a_node_that_could_not_be_told_of_an_end_is_named(site: Site, proxies: dict[str, FaultProxy]) -> None:
    browser = with_session(site)
    proxies["n1"].black_hole()
    _, error = msm("delete", browser.cookie or "")
    assert "n1" in error
    assert "could not be told" in error
    assert browser.read() == {}


def test_an_end_that_workers_keep_in_a_file_is_told_when_the_nodes_are_back(
    nodes: Nodes, proxies: dict[str, FaultProxy], tmp_path: Path
) -> None:
    settings = {
        "nodes": ",".join(f"{name}:{proxy.address}" for name, proxy in proxies.items()),
        "timeouts": UNHURRIED,
        "reconnect": {"first": 0.1, "cap": 0.2},
        "local_store": f"sqlite:///{tmp_path}/sessions",
    }
    with serve("threads", MSM_FAST=settings) as site, elsewhere(nodes) as manager:
        key = with_session(site).cookie or ""
        for proxy in proxies.values():
            proxy.refuse()
        _, error = msm("delete", key)
        assert "will be ended when the nodes are back" in error
        assert manager.load(key) is not None
        for proxy in proxies.values():
            proxy.heal()
        site.wait_until(lambda: manager.load(key) is None)
