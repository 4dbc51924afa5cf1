"""manage.py msm, on the embedded local store; with nodes see tests/integration/test_django_command.py."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from msm_fast.integrations.django import SessionStore
from tests.django_site import serve


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    with serve("threads"):
        yield


@pytest.fixture
def key() -> str:
    store = SessionStore()
    store["card"] = "4111-1111"
    store.save()
    return str(store.session_key)


def msm(*arguments: str) -> str:
    out = io.StringIO()
    call_command("msm", *arguments, stdout=out)
    return out.getvalue()


def test_status_says_where_sessions_are_kept() -> None:
    assert msm("status") == "state: local  nodes: 0  nodes_up: 0\n"


def test_inspect_shows_names_and_types_but_no_value_and_no_key(key: str) -> None:
    shown = msm("inspect", key)
    assert "card (str)" in shown
    assert "4111" not in shown
    assert key.partition("-")[0] not in shown
    assert json.loads(msm("inspect", key, "--json"))["attributes"] == {"card": "str"}


def test_inspect_shows_a_name_that_a_terminal_would_obey_escaped() -> None:
    store = SessionStore()
    store["\x1b[2Jbad\nsession: faked"] = 1
    store["naïve"] = 1
    store.save()
    shown = msm("inspect", str(store.session_key))
    assert r"'\x1b[2Jbad\nsession: faked' (int)" in shown
    assert "naïve (int)" in shown
    assert shown.rstrip("\n").isprintable()


def test_delete_ends_a_session(key: str) -> None:
    assert "invalidated" in msm("delete", key)
    assert not SessionStore().exists(key)


@pytest.mark.parametrize("task", ["inspect", "delete"])
@pytest.mark.parametrize("key", ["0123456789abcdef0123456789abcdef", "no key at all"])
def test_an_unknown_session_is_an_error(task: str, key: str) -> None:
    with pytest.raises(CommandError, match=r"no session (of this )?key"):
        msm(task, key)
