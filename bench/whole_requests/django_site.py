"""The application in Django, as one of its contenders."""

from __future__ import annotations

import time

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path

from bench.whole_requests.contenders import (
    ALL_OURS,
    BASE,
    DJANGO_ON_PYLIBMC,
    FLOOR,
    LIFETIME_S,
    Configuration,
    our_settings,
)
from bench.whole_requests.content import attributes_of, body, serve

CONFIGURATION = Configuration.of_this_process()
CONTENDER = CONFIGURATION.contender
BACKEND = "PyLibMCCache" if CONTENDER == DJANGO_ON_PYLIBMC else "PyMemcacheCache"
IS_OURS = CONTENDER in ALL_OURS


def engine() -> str:
    if IS_OURS:
        return "msm_fast.integrations.django"
    return "bench.whole_requests.floor_django" if CONTENDER == FLOOR else "django.contrib.sessions.backends.cache"


def middleware() -> list[str]:
    if CONTENDER == BASE:
        return []
    package = "msm_fast.integrations.django" if IS_OURS else "django.contrib.sessions"
    return [f"{package}.middleware.SessionMiddleware"]


def page(request: HttpRequest) -> HttpResponse:
    if CONTENDER == BASE:
        return HttpResponse(body(3, 0), content_type="text/plain")
    return HttpResponse(serve(request.session, is_write=request.method == "POST"), content_type="text/plain")


def fill(request: HttpRequest, size: int, seed: int) -> HttpResponse:
    request.session.update(attributes_of(size, seed))
    return HttpResponse(status=204)


def cpu_time(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(time.process_time()), content_type="text/plain")


urlpatterns = [path("", page), path("fill/<int:size>/<int:seed>", fill), path("cpu_time", cpu_time)]

settings.configure(
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    SECRET_KEY="of a benchmark",
    MIDDLEWARE=middleware(),
    SESSION_ENGINE=engine(),
    SESSION_COOKIE_AGE=LIFETIME_S,
    MSM_FAST=our_settings(CONTENDER, CONFIGURATION.nodes),
    CACHES={
        "default": {
            "BACKEND": f"django.core.cache.backends.memcached.{BACKEND}",
            "LOCATION": CONFIGURATION.nodes[0],
        }
    },
)
application = get_wsgi_application()
