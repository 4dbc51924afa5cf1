"""A shop in Starlette and one in FastAPI, as their users write them: each POST adds to the cart."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from anyio import to_thread
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
from msm_fast.integrations.asgi import SessionMiddleware
from tests.integration.meeting import Meeting


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


async def set_one(request: Request) -> JSONResponse:
    request.session[request.path_params["name"]] = True
    return JSONResponse({})


async def set_slowly(request: Request) -> JSONResponse:
    request.session.get("any")
    await to_thread.run_sync(request.app.state.meeting.hold_up)
    return await set_one(request)


async def read_slowly(request: Request) -> JSONResponse:
    found = dict(request.session)
    await to_thread.run_sync(request.app.state.meeting.hold_up)
    return JSONResponse(found)


async def clear(request: Request) -> JSONResponse:
    request.session.clear()
    return JSONResponse({})


async def set_bad(request: Request) -> JSONResponse:
    request.session["bad"] = asyncio.Lock()
    return JSONResponse({})


async def page(request: Request) -> JSONResponse:
    return JSONResponse({})


async def everything(request: Request) -> JSONResponse:
    return JSONResponse(dict(request.session))


async def talk(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        websocket.session["said"] = text
        await websocket.session.save()  # type: ignore[attr-defined]
        await websocket.send_text(f"stored {text}")


def make_starlette(meeting: Meeting | None = None, **options: Any) -> Starlette:
    routes = [
        Route("/cart", cart, methods=["GET", "POST"]),
        Route("/in", log_in, methods=["POST"]),
        Route("/out", log_out, methods=["POST"]),
        Route("/stream", stream, methods=["POST"]),
        Route("/set/{name}", set_one, methods=["POST"]),
        Route("/slow/{name}", set_slowly, methods=["POST"]),
        Route("/slow", read_slowly),
        Route("/clear", clear, methods=["POST"]),
        Route("/bad", set_bad, methods=["POST"]),
        Route("/page", page),
        Route("/everything", everything),
        WebSocketRoute("/talk", talk),
    ]
    options = options or {"nodes": Settings.from_env()}
    app = Starlette(routes=routes, middleware=[Middleware(SessionMiddleware, **options)])
    app.state.meeting = meeting
    return app


def make_fastapi(nodes: str) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, nodes=nodes)

    @app.post("/visits")
    async def visit(request: FastAPIRequest) -> dict[str, int]:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return {"visits": request.session["visits"]}

    return app
