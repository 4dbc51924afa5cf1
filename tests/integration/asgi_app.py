"""A shop in Starlette and one in FastAPI, as their users write them: each POST adds to the cart."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from fastapi import Request as FastAPIRequest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from msm_fast import Settings
from msm_fast.integrations.asgi import SCOPE_KEY, SessionMiddleware


async def cart(request: Request) -> JSONResponse:
    if request.method == "POST":
        request.session.setdefault("cart", []).append(request.query_params["item"])
    return JSONResponse({"cart": request.session.get("cart", []), "pid": os.getpid()})


async def log_in(request: Request) -> JSONResponse:
    request.session.rotate_id()  # type: ignore[attr-defined]
    request.session["user"] = "ada"
    return JSONResponse({})


async def log_out(request: Request) -> JSONResponse:
    request.session.invalidate()  # type: ignore[attr-defined]
    return JSONResponse({})


async def stream(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[str]:
        for n in range(3):
            request.session["streamed"] = n
            yield str(n)

    def finish() -> None:
        request.session["finished"] = True

    request.session["streamed"] = None
    return StreamingResponse(pieces(), background=BackgroundTask(finish))


async def everything(request: Request) -> JSONResponse:
    return JSONResponse(dict(request.session))


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        websocket.session["said"] = text
        await websocket.scope[SCOPE_KEY].save()
        await websocket.send_text(f"stored {text}")


def make_starlette(**options: Any) -> Starlette:
    routes = [
        Route("/cart", cart, methods=["GET", "POST"]),
        Route("/in", log_in, methods=["POST"]),
        Route("/out", log_out, methods=["POST"]),
        Route("/stream", stream, methods=["POST"]),
        Route("/everything", everything),
        WebSocketRoute("/talk", talk),
    ]
    options = options or {"nodes": Settings.from_env()}
    return Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, **options)])


def make_fastapi(nodes: str) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, nodes=nodes)

    @app.post("/visits")
    async def visit(request: FastAPIRequest) -> dict[str, int]:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"visits": request.session["visits"]}

    return app
