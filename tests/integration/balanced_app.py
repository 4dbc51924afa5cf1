"""A shop behind a balancer: each POST adds to the cart, and every response says which worker has served it."""

from __future__ import annotations

from typing import Any

from msm_fast import SessionManager, Settings
from msm_fast.integrations.wsgi import ENVIRON_KEY, SessionMiddleware

manager = SessionManager(Settings.from_env())


def serve(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    session = environ[ENVIRON_KEY]
    if environ["REQUEST_METHOD"] == "POST":
        session.setdefault("cart", []).append(environ["PATH_INFO"].strip("/"))
    body = ",".join(session.get("cart", [])).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Worker", manager.settings.route or "")])
    return [body]


app = SessionMiddleware(serve, manager)
