"""What the answer is where a session is out of reach and the settings say that this is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.django_site import OUR_WAYS, OURS, Site, serve

BELOW: dict[str, dict[str, Any]] = {
    "the site's own": {"MIDDLEWARE": [OURS, "tests.django_site.middleware.look_at_session"]},
    "Django's": {"MIDDLEWARE": [OURS, "django.middleware.csrf.CsrfViewMiddleware"], "CSRF_USE_SESSIONS": True},
}
"""Middleware that looks at the session before the view. With Django's, its page for errors does so again."""


@pytest.fixture(params=OUR_WAYS)
def way(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=BELOW)
def site(request: pytest.FixtureRequest, way: str) -> Iterator[Site]:
    with serve(way, MSM_FAST={"nodes": "n1:127.0.0.1:1", "on_cluster_lost": "error"}, **BELOW[request.param]) as site:
        yield site


def test_it_is_503_too_if_a_middleware_needed_the_session(site: Site) -> None:
    response = site.browser("0123456789abcdef0123456789abcdef-n1").get("nothing")
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.headers["Cache-Control"] == "no-store"
    assert "sessionid" not in response.cookies


def test_a_client_without_a_session_is_served(site: Site) -> None:
    assert site.browser().get("nothing").status_code == 200


def test_other_errors_of_a_middleware_are_not_hidden_by_it(way: str) -> None:
    with serve(way, **BELOW["the site's own"]) as site:
        browser = site.browser()
        browser.get("put", user="ada")
        assert browser.get("spoil").status_code == 500, "the application is stopped"
        response = browser.get("nothing")
        assert response.status_code == 500
