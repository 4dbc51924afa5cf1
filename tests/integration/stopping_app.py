"""Applications for WSGI and ASGI whose process ends itself when a session cannot be stored, as with each POST."""

from __future__ import annotations

import os
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from msm_fast import SessionManager
from msm_fast.integrations import asgi, wsgi

manager = SessionManager(on_stop="end_process")


def serve_wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = environ[wsgi.ENVIRON_KEY]
    session["handle"] = object() if environ["REQUEST_METHOD"] == "POST" else None
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]


async def serve_asgi(request: Request) -> PlainTextResponse:
    request.session["handle"] = object() if request.method == "POST" else None
    return PlainTextResponse(str(os.getpid()))


wsgi_app = wsgi.SessionMiddleware(serve_wsgi, manager)
asgi_app = Starlette(
    routes=[Route("/", serve_asgi, methods=["GET", "POST"])],
    middleware=[Middleware(asgi.SessionMiddleware, on_stop="end_process")],
)
