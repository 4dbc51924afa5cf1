"""What manage.py check says."""

from __future__ import annotations

from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.checks import run_checks
from django.views.debug import ExceptionReporter

from msm_fast.errors import ConfigurationError
from msm_fast.integrations.django.managers import managers, settings_of_django
from tests.django_site import DJANGOS, OURS, serve

SECRET = token_hex()


def ids(*, deploy: bool = False, **settings: Any) -> list[str]:
    with serve("threads", **settings):
        found = run_checks(include_deployment_checks=deploy)
        return [message.id for message in found if message.id.startswith("msm_fast")]


def said(name: str, *, deploy: bool = False, **settings: Any) -> Any:
    with serve("threads", **settings):
        found = run_checks(include_deployment_checks=deploy)
        (message,) = [message for message in found if message.id == name]
    return message


def test_good_settings_are_not_remarked_upon() -> None:
    assert ids(MSM_FAST={"nodes": "n1:127.0.0.1:1", "timeouts": {"request": 0.5}}) == []


@pytest.mark.parametrize(
    "wrong", [{"node": "n1:127.0.0.1:1"}, {"timeouts": {"requests": 1}}, {"replicas": -1}, ["n1:127.0.0.1:1"]]
)
def test_a_wrong_setting_is_an_error(wrong: object) -> None:
    assert ids(MSM_FAST=wrong) == ["msm_fast.E001"]


def test_a_wrong_name_is_named_with_what_there_is() -> None:
    message = said("msm_fast.E001", MSM_FAST={"node": "n1:127.0.0.1:1"})
    assert "node" in message.msg
    assert "nodes" in message.hint


def test_a_secret_is_not_shown() -> None:
    message = said("msm_fast.E001", MSM_FAST={"secrets": ["too short"]})
    assert "too short" not in message.msg + message.hint
    with (
        serve("threads", MSM_FAST="{'secrets': ['from the environment']}"),
        pytest.raises(ConfigurationError, match="MSM_FAST=<class 'str'>") as caught,
    ):
        settings_of_django()
    assert "environment" not in str(caught.value)


@pytest.mark.parametrize("wrong", [{"on_corrupt": "wrong"}, {"timeouts": {"requests": 1}}, {}], ids=str)
def test_a_page_about_a_wrong_setting_does_not_show_the_secrets_beside_it(wrong: dict[str, Any]) -> None:
    with (
        serve("threads", SESSION_COOKIE_AGE=1800 if wrong else 0, MSM_FAST={**wrong, "secrets": [SECRET]}),
        pytest.raises(ConfigurationError) as caught,
    ):
        managers()
    page = ExceptionReporter(None, caught.type, caught.value, caught.tb).get_traceback_html()
    assert "managers.py" in page
    assert SECRET not in page


@pytest.mark.parametrize("age", ["100", 0, -1])
def test_a_wrong_age_of_the_cookie_is_called_by_its_name(age: object) -> None:
    message = said("msm_fast.E001", SESSION_COOKIE_AGE=age)
    assert message.msg == "SESSION_COOKIE_AGE is not accepted."
    assert ids(SESSION_COOKIE_AGE=age, MSM_FAST={"max_inactive": 1800}) == []
    assert "MSM_FAST: max_inactive" in said("msm_fast.E001", MSM_FAST={"max_inactive": age}).msg


def test_what_is_no_dict_is_called_by_its_name_once() -> None:
    assert said("msm_fast.E001", MSM_FAST=["n1:127.0.0.1:1"]).msg == "MSM_FAST is not accepted."


@pytest.mark.parametrize("name", ["ca_file", "certificate_file"])
def test_a_file_that_is_not_there_is_warned_of(name: str, tmp_path: Path) -> None:
    settings = {"nodes": "n1:127.0.0.1:1", "tls": {name: str(tmp_path / "missing.pem")}}
    assert f"tls.{name}" in said("msm_fast.W006", MSM_FAST=settings).msg


def test_sessions_of_another_engine_are_warned_of_and_no_command_is_kept_from_running() -> None:
    assert ids(SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies") == ["msm_fast.W002"]


def test_a_serializer_of_sessions_that_has_no_meaning_is_warned_of() -> None:
    assert ids(SESSION_SERIALIZER="a.serializer.of.their.Own") == ["msm_fast.W005"]
    others = "django.contrib.sessions.backends.signed_cookies"
    assert ids(SESSION_SERIALIZER="a.serializer.of.their.Own", SESSION_ENGINE=others) == ["msm_fast.W002"]


@pytest.mark.parametrize("setting", [{"locking": "all"}, {"ignore_requests": r".*\.png"}])
def test_settings_that_go_by_the_request_need_our_middleware(setting: dict[str, str]) -> None:
    assert ids(MSM_FAST=setting, MIDDLEWARE=[DJANGOS]) == ["msm_fast.E003"]
    assert ids(MSM_FAST=setting) == []


@pytest.mark.parametrize("both", [[OURS, DJANGOS], [DJANGOS, OURS]])
def test_djangos_middleware_beside_ours_is_warned_of(both: list[str]) -> None:
    assert ids(MIDDLEWARE=both) == ["msm_fast.W008"]
    assert ids(MIDDLEWARE=[DJANGOS]) == []


def test_a_deployment_without_nodes_is_warned_of() -> None:
    assert ids(deploy=True, SESSION_COOKIE_SECURE=True) == ["msm_fast.W004"]
    assert ids(deploy=True, SESSION_COOKIE_SECURE=True, MSM_FAST={"nodes": "n1:127.0.0.1:1"}) == []


@pytest.mark.parametrize(
    ("insecure", "name"),
    [
        ({"SESSION_COOKIE_SECURE": False}, "SESSION_COOKIE_SECURE"),
        ({"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_HTTPONLY": False}, "SESSION_COOKIE_HTTPONLY"),
    ],
)
def test_a_cookie_that_others_may_read_is_warned_of_where_django_does_not(
    insecure: dict[str, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = {"MSM_FAST": {"nodes": "n1:127.0.0.1:1"}, **insecure}
    assert name in said("msm_fast.W007", deploy=True, **site).msg
    assert ids(**site) == []
    assert ids(deploy=True, MIDDLEWARE=[DJANGOS], **site) == [], "Django says so itself"
    monkeypatch.setattr(django_settings, "INSTALLED_APPS", [*django_settings.INSTALLED_APPS, "django.contrib.sessions"])
    assert ids(deploy=True, **site) == [], "Django says so itself"
