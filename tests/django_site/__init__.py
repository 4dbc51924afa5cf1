"""A Django site for tests: its settings, a browser, and the ways in which Django may serve it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import django
from django.conf import settings
from django.contrib.auth.signals import user_logged_in
from django.test import AsyncClient, Client, override_settings

from msm_fast.integrations.django import managers

OURS = "msm_fast.integrations.django.SessionMiddleware"
DJANGOS = "django.contrib.sessions.middleware.SessionMiddleware"

if not settings.configured:
    settings.configure(
        SECRET_KEY="a secret of the tests",
        ALLOWED_HOSTS=["*"],
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "msm_fast.integrations.django"],
        AUTHENTICATION_BACKENDS=["django.contrib.auth.backends.ModelBackend"],
        DATABASES={},
        MIDDLEWARE=[OURS],
        ROOT_URLCONF="tests.django_site.urls",
        SESSION_ENGINE="msm_fast.integrations.django",
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()
    user_logged_in.disconnect(dispatch_uid="update_last_login")  # there is no database

WAYS = {
    "threads": (OURS, "sync", False),
    "loop": (OURS, "async", True),
    "loop, awaiting": (OURS, "awaiting", True),
    "loop, views in threads": (OURS, "sync", True),
    "threads, asynchronous views": (OURS, "awaiting", False),
    "Django's middleware": (DJANGOS, "sync", False),
    "Django's middleware, in a loop": (DJANGOS, "awaiting", True),
}
"""Of each way: the session middleware, which of the views, and whether an event loop serves the site."""
OUR_WAYS = [name for name, (middleware, _, _) in WAYS.items() if middleware == OURS]


class Browser:
    """Keeps the cookie, and calls the views of one kind."""

    def __init__(self, kind: str, loop: asyncio.AbstractEventLoop | None) -> None:
        self._kind = kind
        self._loop = loop
        self._client = Client(raise_request_exception=False)
        self._async_client = AsyncClient(raise_request_exception=False)
        self._client.cookies = self._async_client.cookies

    @property
    def cookie(self) -> str | None:
        morsel = self._client.cookies.get("sessionid")
        return morsel.value or None if morsel else None

    @cookie.setter
    def cookie(self, value: str) -> None:
        self._client.cookies["sessionid"] = value

    def get(self, task: str, **query: Any) -> Any:
        return self.send("GET", task, **query)

    def post(self, task: str, **query: Any) -> Any:
        return self.send("POST", task, **query)

    def send(self, method: str, task: str, **query: Any) -> Any:
        path = f"/{self._kind}/{task}?{urlencode(query)}"
        if self._loop is None:
            return self._client.generic(method, path)
        return self._loop.run_until_complete(self._async_client.generic(method, path))

    def read(self) -> Any:
        """Return what the session holds."""
        return self.get("read").json()


class Site:
    """The site, served in one of the ways."""

    def __init__(self, kind: str, loop: asyncio.AbstractEventLoop | None) -> None:
        self.kind = kind
        self.loop = loop

    def browser(self, cookie: str | None = None) -> Browser:
        browser = Browser(self.kind, self.loop)
        if cookie is not None:
            browser.cookie = cookie
        return browser

    def new_worker(self) -> None:
        """Go on as another process would, which has seen nothing yet."""
        managers._forget(setting="MSM_FAST")

    def round_trips(self) -> int:
        """Return how often this worker has waited for memcached."""
        return sum(manager.statistics().round_trips for manager in managers.managers()._all())

    def wait_until(self, condition: Callable[[], bool], patience_s: float = 20.0) -> None:
        """Let the background work until condition holds."""
        deadline = time.monotonic() + patience_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            if self.loop is None:
                time.sleep(0.02)
            else:
                self.loop.run_until_complete(asyncio.sleep(0.02))


@contextmanager
def serve(way: str, **changed_settings: Any) -> Iterator[Site]:
    """Serve the site in one of WAYS, with other settings than usual."""
    middleware, kind, has_loop = WAYS[way]
    loop = asyncio.new_event_loop() if has_loop else None
    changed_settings = {"MSM_FAST": {}, "MIDDLEWARE": [middleware], **changed_settings}
    try:
        with override_settings(**changed_settings):
            yield Site(kind, loop)
    finally:
        if loop is not None:
            loop.run_until_complete(_cancel_tasks())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()


async def _cancel_tasks() -> None:
    """End what goes on in the background, as asyncio.run does."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
