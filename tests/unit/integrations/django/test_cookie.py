"""The session's cookie, beside the one that response.set_cookie makes."""

from __future__ import annotations

import pickle
import time
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import override_settings
from django.utils.http import http_date

from msm_fast.integrations.django.cookie import SessionCookie, session_cookie
from msm_fast.integrations.django.known_settings import cookie_settings, setting
from tests.django_site import serve

VALUE = "0123456789abcdef0123456789abcdef-n1.w-1"
EXPIRES = "Thu, 01 Jan 2026 00:00:00 GMT"
SITES: list[dict[str, Any]] = [
    {},
    {"SESSION_COOKIE_NAME": "__Host-id", "SESSION_COOKIE_SECURE": True},
    {"SESSION_COOKIE_DOMAIN": "example.org", "SESSION_COOKIE_PATH": "/shop"},
    {"SESSION_COOKIE_HTTPONLY": False, "SESSION_COOKIE_SAMESITE": False},
    {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
]


@pytest.fixture(autouse=True)
def _django() -> Any:
    with serve("threads"):
        yield


def by_django(max_age: int | None, expires: str | None) -> Any:
    response = HttpResponse()
    name = setting("SESSION_COOKIE_NAME")
    response.set_cookie(
        name,
        VALUE,
        max_age=max_age,
        expires=expires,
        domain=setting("SESSION_COOKIE_DOMAIN"),
        path=setting("SESSION_COOKIE_PATH"),
        secure=setting("SESSION_COOKIE_SECURE") or None,
        httponly=setting("SESSION_COOKIE_HTTPONLY") or None,
        samesite=setting("SESSION_COOKIE_SAMESITE"),
    )
    return response.cookies[name]


@pytest.mark.parametrize("site", SITES, ids=str)
@pytest.mark.parametrize("max_age", [None, 0, 1800])
def test_it_reads_as_djangos_own(site: dict[str, Any], max_age: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.5)
    with override_settings(**site):
        ours = session_cookie(cookie_settings(), VALUE, max_age)
        theirs = by_django(max_age, None if max_age is None else http_date(1_700_000_000 + max_age))
    assert ours.output(header="") == theirs.output(header="")
    assert dict(ours) == dict(theirs)
    assert (ours.key, ours.value, ours.coded_value) == (theirs.key, theirs.value, theirs.coded_value)


def test_a_response_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    response = HttpResponse()
    response.cookies["sessionid"] = session_cookie(cookie_settings(), VALUE, 1800)
    assert response.cookies["sessionid"].value == VALUE
    assert f"sessionid={VALUE}" in response.cookies.output()


@pytest.mark.parametrize(("attribute", "value"), [("samesite", "Strict"), ("path", "/other"), ("max-age", 5)])
def test_what_is_changed_of_it_afterwards_counts(attribute: str, value: object) -> None:
    cookie, theirs = session_cookie(cookie_settings(), VALUE, 1800), by_django(1800, EXPIRES)
    cookie["expires"] = EXPIRES
    cookie[attribute] = theirs[attribute] = value
    assert cookie.OutputString() == theirs.OutputString()


def test_another_value_counts_too() -> None:
    cookie = session_cookie(cookie_settings(), VALUE, None)
    cookie.set("sessionid", "other", "other")
    assert cookie.OutputString().startswith("sessionid=other;")


def test_one_cookie_is_not_anothers() -> None:
    first, second = [session_cookie(cookie_settings(), letter * 32, None) for letter in "ab"]
    first["path"] = "/first"
    assert "/first" not in second.OutputString()
    assert "/first" not in session_cookie(cookie_settings(), "c" * 32, None).OutputString()


def test_it_outlives_pickling_as_a_cached_response_does() -> None:
    cookie = session_cookie(cookie_settings(), VALUE, 1800)
    again = pickle.loads(pickle.dumps(cookie))
    assert isinstance(again, SessionCookie)
    assert again.OutputString() == cookie.OutputString()


def test_settings_that_are_overridden_or_set_are_read_as_they_are() -> None:
    assert setting("SESSION_COOKIE_NAME") == "sessionid"
    before = cookie_settings()
    assert cookie_settings() is before
    with override_settings(SESSION_COOKIE_NAME="other", SESSION_COOKIE_PATH="/p"):
        assert setting("SESSION_COOKIE_NAME") == cookie_settings().cookie_name == "other"
        assert cookie_settings().cookie_path == "/p"
    assert setting("SESSION_COOKIE_NAME") == "sessionid"
    assert cookie_settings() == before
