"""Starlette and FastAPI over real memcached, in a test client and behind real uvicorn."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.cookies import SimpleCookie
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from msm_fast import AsyncSessionManager, SessionManager
from msm_fast.integrations.asgi import SessionMiddleware
from tests.adversity.proxy import FaultProxy
from tests.integration.asgi_app import make_fastapi, make_starlette
from tests.integration.conftest import Nodes
from tests.timeouts import HURRIED, UNHURRIED

pytestmark = pytest.mark.memcached
PATIENCE_S = 20.0
N_SHOPPERS = 8


def as_text(nodes: Nodes) -> str:
    return ",".join(f"{name}:{server.address}" for name, server in nodes.items())


@pytest.fixture
def client(nodes: Nodes) -> Iterator[TestClient]:
    with TestClient(make_starlette(nodes=as_text(nodes), timeouts=UNHURRIED)) as client:
        yield client


def seen_elsewhere(nodes: Nodes, client: TestClient) -> dict[str, Any]:
    """Return what another worker finds of the client's session."""
    with SessionManager(as_text(nodes), timeouts=UNHURRIED) as manager:
        session = manager.load(client.cookies["session"])
        return {} if session is None else dict(session)


@pytest.mark.shows("nested")
def test_nested_changes_are_stored(client: TestClient, nodes: Nodes) -> None:
    for n in range(3):
        client.post("/cart", params={"item": f"apple{n}"})
    assert seen_elsewhere(nodes, client) == {"cart": ["apple0", "apple1", "apple2"]}


@pytest.mark.shows("rotation")
def test_a_login_gives_another_id_and_the_old_one_is_dead(client: TestClient, nodes: Nodes) -> None:
    client.post("/cart", params={"item": "apple"})
    old = client.cookies["session"]
    client.post("/in")
    assert client.cookies["session"] != old
    assert client.get("/everything").json() == {"cart": ["apple"], "user": "ada"}
    with SessionManager(as_text(nodes), timeouts=UNHURRIED) as manager:
        assert manager.load(old) is None


def test_after_a_logout_the_cookie_is_gone_and_the_id_is_dead(client: TestClient) -> None:
    client.post("/in")
    old = client.cookies["session"]
    client.post("/out")
    assert "session" not in client.cookies
    client.cookies["session"] = old
    assert client.get("/everything").json() == {}


def test_what_streams_and_background_tasks_write_is_stored(client: TestClient, nodes: Nodes) -> None:
    assert client.post("/stream").text == "012"
    assert seen_elsewhere(nodes, client) == {"streamed": 2, "finished": True}


def test_a_websocket_stores_what_is_said(client: TestClient, nodes: Nodes) -> None:
    client.post("/cart", params={"item": "apple"})
    with client.websocket_connect("/talk") as websocket:
        websocket.send_text("hello")
        assert websocket.receive_text() == "stored hello"
        assert seen_elsewhere(nodes, client) == {"cart": ["apple"], "said": "hello"}


def test_each_save_of_a_websocket_that_lives_long_has_the_time_of_a_request(nodes: Nodes) -> None:
    async def count(websocket: WebSocket) -> None:
        await websocket.accept()
        for n in range(20):
            websocket.session["n"] = n
            await websocket.session.save()
        await websocket.close()

    proxy = FaultProxy(nodes["n1"].port)
    proxy.replies.delay_s = 0.03
    app = SessionMiddleware(
        Starlette(routes=[WebSocketRoute("/", count)]),
        nodes=f"n1:{proxy.address}",
        timeouts=replace(UNHURRIED, request=0.5),
        on_cluster_lost="error",
    )
    try:
        with TestClient(app) as client, client.websocket_connect("/") as websocket:
            assert websocket.receive()["code"] == 1000
    finally:
        proxy.close()


def test_an_open_connection_that_has_not_looked_at_its_session_does_not_keep_it_locked(nodes: Nodes) -> None:
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    async def buy(request: Request) -> Response:
        request.session["cart"] = ["apple"]
        return Response()

    app = SessionMiddleware(
        Starlette(routes=[WebSocketRoute("/feed", feed), Route("/", buy, methods=["POST"])]),
        nodes=as_text(nodes),
        locking="all",
        timeouts=replace(UNHURRIED, lock=0.2),
    )
    with TestClient(app) as client:
        client.post("/")
        with client.websocket_connect("/feed"):
            assert client.post("/").status_code == 200


def test_fastapi_has_its_session_too(nodes: Nodes) -> None:
    with TestClient(make_fastapi(as_text(nodes))) as client:
        assert [client.post("/visits").json()["visits"] for _ in range(3)] == [1, 2, 3]


def test_without_any_node_the_answer_keeps_the_cookie_and_the_session_lives_on(nodes: Nodes) -> None:
    with TestClient(make_starlette(nodes=as_text(nodes), on_cluster_lost="error", timeouts=HURRIED)) as client:
        client.post("/cart", params={"item": "apple"})
        for server in nodes.values():
            server.pause()
        try:
            refused = client.post("/cart", params={"item": "pear"})
        finally:
            for server in nodes.values():
                server.resume()
        assert (refused.status_code, "set-cookie" in refused.headers) == (503, False)
        deadline = time.monotonic() + PATIENCE_S
        while (response := client.get("/cart")).status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert response.json()["cart"] == ["apple"]


# -- uvicorn


class Uvicorn:
    """Two worker processes of one port."""

    def __init__(self, nodes: str) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        fd = self._listener.fileno()
        command = [
            "uvicorn",
            "--factory",
            "--workers",
            "2",
            "--fd",
            str(fd),
            "tests.integration.asgi_app:make_starlette",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "MSM_FAST_NODES": nodes, **UNHURRIED_VARIABLES},
            pass_fds=[fd],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE_S)
        self._listener.close()


@pytest.fixture
def uvicorn(nodes: Nodes) -> Iterator[Uvicorn]:
    server = Uvicorn(as_text(nodes))
    yield server
    server.close()


UNHURRIED_VARIABLES = {f"MSM_FAST_TIMEOUTS_{name}": "5" for name in ("CONNECT", "OPERATION", "REQUEST")}
"""On a machine that is busy with other things no worker is to keep a cart to itself."""


class Shopper:
    """A client that tries again what the server broke off, as a browser would."""

    def __init__(self, server: Uvicorn) -> None:
        self._server = server
        self.cookie = ""
        self.pids: set[int] = set()

    def see_cart(self) -> list[str]:
        answer = self._request("GET", "/cart")
        self.pids.add(answer["pid"])
        return list(answer["cart"])

    def buy(self, item: str) -> None:
        self._request("POST", f"/cart?item={item}")

    def _request(self, method: str, path: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            headers = {"Cookie": f"session={self.cookie}"} if self.cookie else {}
            request = urllib.request.Request(self._server.address + path, headers=headers, method=method)
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                    for morsel in SimpleCookie(response.headers.get("Set-Cookie", "")).values():
                        self.cookie = morsel.value
                    answer: dict[str, Any] = json.load(response)
                    return answer
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)


def at_once(shoppers: list[Shopper], act: Callable[[Shopper], object]) -> None:
    threads = [threading.Thread(target=act, args=(shopper,)) for shopper in shoppers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.shows("node")
def test_carts_outlive_a_node_and_a_worker(uvicorn: Uvicorn, nodes: Nodes) -> None:
    shoppers = [Shopper(uvicorn) for _ in range(N_SHOPPERS)]
    at_once(shoppers, lambda shopper: shopper.buy("apple"))
    nodes["n1"].kill()
    at_once(shoppers, lambda shopper: shopper.buy("pear"))
    nodes["n1"].start()
    deadline = time.monotonic() + PATIENCE_S
    while len(pids := set.union(*(shopper.pids for shopper in shoppers))) < 2:  # the other one may still be starting
        assert time.monotonic() < deadline
        at_once(shoppers, Shopper.see_cart)
    os.kill(pids.pop(), signal.SIGKILL)
    at_once(shoppers, lambda shopper: shopper.buy("plum"))
    assert [shopper.see_cart() for shopper in shoppers] == [["apple", "pear", "plum"]] * N_SHOPPERS


def test_two_requests_of_one_session_at_once_both_count(nodes: Nodes) -> None:
    async def serve_both() -> dict[str, Any]:
        async with AsyncSessionManager(as_text(nodes), timeouts=UNHURRIED) as manager:
            session = manager.create()
            session["n"] = 0
            await manager.save(session)

            async def write(name: str) -> None:
                async with manager.request(session.id, "POST") as live:
                    live[name] = True
                    await asyncio.sleep(0.05)

            await asyncio.gather(write("one"), write("other"))
            found = await manager.load(session.id)
            assert found is not None
            return dict(found)

    assert asyncio.run(serve_both()) == {"n": 0, "one": True, "other": True}
