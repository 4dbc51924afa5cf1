"""The application in Starlette, as one of its contenders."""

from __future__ import annotations

import time
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from bench.whole_requests.contenders import ALL_OURS, BASE, FLOOR, LIFETIME_S, STARSESSIONS, Configuration, our_settings
from bench.whole_requests.content import attributes_of, body, serve

CONFIGURATION = Configuration.of_this_process()
CONTENDER = CONFIGURATION.contender


async def loaded(request: Request) -> Any:
    if CONTENDER == STARSESSIONS:
        from starsessions import load_session

        await load_session(request)
    return request.session


async def page(request: Request) -> Response:
    if CONTENDER == BASE:
        return PlainTextResponse(body(3, 0))
    return PlainTextResponse(serve(await loaded(request), is_write=request.method == "POST"))


async def fill(request: Request) -> Response:
    (await loaded(request)).update(attributes_of(request.path_params["size"], request.path_params["seed"]))
    return Response(status_code=204)


async def cpu_time(request: Request) -> Response:
    return PlainTextResponse(str(time.process_time()))


def middleware() -> list[Middleware]:
    if CONTENDER == BASE:
        return []
    if CONTENDER in ALL_OURS:
        from msm_fast import AsyncSessionManager, Settings
        from msm_fast.integrations.asgi import SessionMiddleware

        settings = Settings.from_mapping(our_settings(CONTENDER, CONFIGURATION.nodes))
        return [Middleware(SessionMiddleware, manager=AsyncSessionManager(settings))]
    if CONTENDER == FLOOR:
        from bench.whole_requests.floor_starlette import FloorMiddleware

        return [Middleware(FloorMiddleware, node=CONFIGURATION.node)]
    from starsessions import SessionMiddleware as Starsessions

    from bench.whole_requests.starsessions_store import MemcachedStore

    store = MemcachedStore(*CONFIGURATION.node)
    return [Middleware(Starsessions, store=store, lifetime=LIFETIME_S, rolling=True, cookie_https_only=False)]


application = Starlette(
    routes=[
        Route("/", page, methods=["GET", "POST"]),
        Route("/fill/{size:int}/{seed:int}", fill, methods=["POST"]),
        Route("/cpu_time", cpu_time),
    ],
    middleware=middleware(),
)
