"""manage.py msm, with nodes in real memcached."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from tests.django_site import Site
from tests.integration.conftest import Nodes
from tests.integration.test_django import in_ways, proxies, site, with_session
from tests.timeouts import HURRIED

__all__ = ["proxies", "site"]

pytestmark = pytest.mark.memcached


def msm(*arguments: str) -> Any:
    out = io.StringIO()
    try:
        call_command("msm", *arguments, "--json", stdout=out)
    except CommandError as error:
        return json.loads(out.getvalue()), str(error)
    return json.loads(out.getvalue()), None


@in_ways(["threads"], timeouts=HURRIED)
def test_the_command_shows_which_nodes_answer(site: Site, nodes: Nodes) -> None:
    assert msm("status") == ({"state": "distributed", "nodes": 2, "up": 2}, None)
    nodes["n1"].kill()
    nodes["n2"].pause()
    shown, error = msm("nodes")
    assert [(node["node"], node["state"]) for node in shown] == [("n1", "down"), ("n2", "down")]
    assert error is not None
    assert msm("status")[0]["up"] == 0


@in_ways(["threads"])
def test_the_command_shows_and_ends_a_session(site: Site) -> None:
    browser = with_session(site)
    shown, _ = msm("inspect", browser.cookie or "")
    assert shown["holds"] == {"user": "str"}
    assert shown["node"] in ("n1", "n2")
    msm("delete", browser.cookie or "")
    assert browser.read() == {}
