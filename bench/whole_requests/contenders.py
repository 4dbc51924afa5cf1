"""Who is compared: in each framework no session at all, ours in three ways, its rivals, and the floor."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

BASE = "no session"
OURS = "msm_fast"
OURS_ONE_COPY = "msm_fast, one copy"
OURS_STICKY = "msm_fast, sticky"
ALL_OURS = (OURS, OURS_ONE_COPY, OURS_STICKY)

FLOOR = "floor: a dict and bare round trips"
NO_RIVALS = (BASE, *ALL_OURS, FLOOR)

DJANGO, FLASK, STARLETTE = "Django behind gunicorn", "Flask behind gunicorn", "Starlette behind uvicorn"
DJANGO_ON_PYMEMCACHE = "Django's cache sessions, pymemcache"
DJANGO_ON_PYLIBMC = "Django's cache sessions, pylibmc"
FLASK_SESSION_ON_PYMEMCACHE = "Flask-Session, pymemcache"
FLASK_SESSION_ON_PYLIBMC = "Flask-Session, pylibmc"
STARSESSIONS = "starsessions, aiomcache"

LIFETIME_S = 1800
_PATIENCE_S = 10.0
"""On a machine that is busy with other things nobody is to give up."""
_CONFIGURATION = "WHOLE_REQUESTS"


class Framework(NamedTuple):
    """A framework's contenders, and the application that serves as each of them.

    rivals: the modules that each needs.
    """

    name: str
    application: str
    is_asgi: bool
    rivals: dict[str, tuple[str, ...]]

    @property
    def contenders(self) -> list[str]:
        """In the order of the report."""
        return [BASE, *ALL_OURS, *self.rivals, FLOOR]


FRAMEWORKS = (
    Framework(
        DJANGO,
        "bench.whole_requests.django_site:application",
        False,
        {DJANGO_ON_PYMEMCACHE: ("pymemcache",), DJANGO_ON_PYLIBMC: ("pylibmc",)},
    ),
    Framework(
        FLASK,
        "bench.whole_requests.flask_site:application",
        False,
        {
            FLASK_SESSION_ON_PYMEMCACHE: ("flask_session", "pymemcache"),
            FLASK_SESSION_ON_PYLIBMC: ("flask_session", "pylibmc"),
        },
    ),
    Framework(
        STARLETTE,
        "bench.whole_requests.starlette_site:application",
        True,
        {STARSESSIONS: ("starsessions", "aiomcache")},
    ),
)


class Configuration(NamedTuple):
    """What a server process is to be: a contender, and where its memcached nodes are ("host:port")."""

    contender: str
    nodes: tuple[str, ...]

    @classmethod
    def of_this_process(cls) -> Configuration:
        """Read what the process was started with."""
        contender, nodes = json.loads(os.environ[_CONFIGURATION])
        return cls(contender, tuple(nodes))

    def environment(self) -> dict[str, str]:
        """Return the environment that hands it to a process."""
        return {**os.environ, _CONFIGURATION: json.dumps(self)}

    @property
    def node(self) -> tuple[str, int]:
        """The host and port of the first node: rivals keep one copy."""
        host, _, port = self.nodes[0].rpartition(":")
        return host, int(port)


def our_settings(contender: str, nodes: Sequence[str]) -> dict[str, Any]:
    """Return msm_fast's settings for one of its ways; all but these are defaults."""
    settings: dict[str, Any] = {
        "nodes": ",".join(f"n{i}:{address}" for i, address in enumerate(nodes, 1)),
        "replicas": 0 if contender == OURS_ONE_COPY else 1,
        "max_inactive": LIFETIME_S,
        "timeouts": {"connect": _PATIENCE_S, "operation": _PATIENCE_S, "request": _PATIENCE_S},
    }
    if contender == OURS_STICKY:
        settings.update(sticky=True, route="w1")
    return settings
