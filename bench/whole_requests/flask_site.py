"""The application in Flask, as one of its contenders."""

from __future__ import annotations

import threading
import time
from typing import Any

from flask import Flask, Response, request, session

from bench.whole_requests.contenders import (
    ALL_OURS,
    BASE,
    FLASK_SESSION_ON_PYLIBMC,
    FLOOR,
    LIFETIME_S,
    Configuration,
    our_settings,
)
from bench.whole_requests.content import attributes_of, body, serve

CONFIGURATION = Configuration.of_this_process()
CONTENDER = CONFIGURATION.contender


class PylibmcOfThreads(threading.local):
    """A pylibmc client for each thread: one client must not be used by two at once."""

    def __init__(self, address: str) -> None:
        import pylibmc

        client = pylibmc.Client([address])
        self.get, self.set, self.delete = client.get, client.set, client.delete


def client_of_rival() -> Any:
    """Return what Flask-Session is to use.

    As it is by default, pymemcache sends a set without waiting for its answer, and the get that follows waits 40 ms for
    the acknowledgement of a larger one: both are set as one would have them.
    """
    if CONTENDER == FLASK_SESSION_ON_PYLIBMC:
        return PylibmcOfThreads(CONFIGURATION.nodes[0])
    from pymemcache.client.base import PooledClient

    return PooledClient(CONFIGURATION.node, no_delay=True, default_noreply=False)


application = Flask(__name__)
application.config["PERMANENT_SESSION_LIFETIME"] = LIFETIME_S
if CONTENDER in ALL_OURS:
    from msm_fast.integrations.flask import MsmFast

    application.config["MSM_FAST"] = our_settings(CONTENDER, CONFIGURATION.nodes)
    MsmFast(application)
elif CONTENDER == FLOOR:
    from bench.whole_requests.floor_flask import FloorInterface

    application.session_interface = FloorInterface(CONFIGURATION.node)
elif CONTENDER != BASE:
    from flask_session import Session

    application.config.update(SESSION_TYPE="memcached", SESSION_MEMCACHED=client_of_rival())
    Session(application)


@application.route("/", methods=["GET", "POST"])
def page() -> Response:
    text = body(3, 0) if CONTENDER == BASE else serve(session, is_write=request.method == "POST")
    return Response(text, content_type="text/plain")


@application.post("/fill/<int:size>/<int:seed>")
def fill(size: int, seed: int) -> Response:
    session.update(attributes_of(size, seed))
    return Response(status=204)


@application.get("/cpu_time")
def cpu_time() -> Response:
    return Response(str(time.process_time()), content_type="text/plain")
