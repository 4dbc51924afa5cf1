"""What manage.py check says."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import run_checks

from tests.django_site import DJANGOS, serve


def ids(*, deploy: bool = False, **settings: Any) -> list[str]:
    with serve("threads", **settings):
        found = run_checks(include_deployment_checks=deploy)
        return [message.id for message in found if message.id.startswith("msm_fast")]


def test_good_settings_are_not_remarked_upon() -> None:
    assert ids(MSM_FAST={"nodes": "n1:127.0.0.1:1", "timeouts": {"request": 0.5}}) == []


@pytest.mark.parametrize(
    "wrong", [{"node": "n1:127.0.0.1:1"}, {"timeouts": {"requests": 1}}, {"replicas": -1}, ["n1:127.0.0.1:1"]]
)
def test_a_wrong_setting_is_an_error(wrong: object) -> None:
    assert ids(MSM_FAST=wrong) == ["msm_fast.E001"]


def test_a_wrong_name_is_named_with_what_there_is() -> None:
    with serve("threads", MSM_FAST={"node": "n1:127.0.0.1:1"}):
        (message,) = [message for message in run_checks() if message.id == "msm_fast.E001"]
    assert "node" in message.msg
    assert "nodes" in message.hint


def test_a_secret_is_not_shown() -> None:
    with serve("threads", MSM_FAST={"secrets": ["too short"]}):
        (message,) = [message for message in run_checks() if message.id == "msm_fast.E001"]
    assert "too short" not in message.msg + message.hint


def test_sessions_of_another_engine_are_an_error() -> None:
    assert ids(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies") == ["msm_fast.E002"]


@pytest.mark.parametrize("setting", [{"locking": "all"}, {"ignore_requests": r".*\.png"}])
def test_settings_that_go_by_the_request_need_our_middleware(setting: dict[str, str]) -> None:
    assert ids(MSM_FAST=setting, MIDDLEWARE=[DJANGOS]) == ["msm_fast.E003"]
    assert ids(MSM_FAST=setting) == []


def test_a_deployment_without_nodes_is_warned_of() -> None:
    assert ids(deploy=True) == ["msm_fast.W004"]
    assert ids(deploy=True, MSM_FAST={"nodes": "n1:127.0.0.1:1"}) == []
