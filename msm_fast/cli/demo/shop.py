"""The demo's shop: a plain WSGI application with a cart in the session.

GET  /              the page for people          POST /cart         its form: item and quantity
GET  /cart          the cart as JSON             PUT  /cart/<item>  the quantity as the body; 0 takes the item out
GET  /statistics    this worker's counters       GET  /health       200 once it serves
"""

from __future__ import annotations

import atexit
import html
import json
import os
import time
from collections.abc import Iterable, MutableMapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import msm_fast
from msm_fast.integrations.wsgi import SessionMiddleware

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["CATALOGUE", "Shop", "create_app"]

CATALOGUE = {"tea": 450, "honey": 890, "bread": 320, "cheese": 1240, "apples": 275, "candles": 560}  # cents
MOST_OF_AN_ITEM = 99

Session = MutableMapping[str, Any]
Headers = list[tuple[str, str]]
Response = tuple[HTTPStatus, Headers, bytes]


def create_app() -> WSGIApplication:
    """Return the shop as a worker serves it, on the nodes that the demo has put into the environment."""
    nodes = os.environ.get("MSM_FAST_DEMO_NODES")
    if nodes:
        # A session that cannot be reached or read shall fail the request, not be papered over by a local copy.
        manager = msm_fast.SessionManager(nodes, on_cluster_lost="error", on_corrupt="error")
    else:
        manager = msm_fast.SessionManager()
    atexit.register(manager.close)
    return timed(SessionMiddleware(Shop(manager), manager))


def timed(app: WSGIApplication) -> WSGIApplication:
    """Wrap app so that each response tells the time from the request's arrival to its status line.

    Around the session middleware that is an upper bound of what the sessions cost.
    """

    def timed_app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        began = time.perf_counter()

        def timed_start(status: str, headers: Headers, exc_info: Any = None) -> Any:
            elapsed_ms = (time.perf_counter() - began) * 1000
            return start_response(status, [*headers, ("Server-Timing", f"app;dur={elapsed_ms:.3f}")], exc_info)

        return app(environ, timed_start)

    return timed_app


class Shop:
    """The shop as a WSGI application; its session is environ["msm_fast.session"]."""

    def __init__(self, manager: msm_fast.SessionManager) -> None:
        self._manager = manager

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        status, headers, body = self._respond(environ)
        headers += [("Content-Length", str(len(body))), ("X-Content-Type-Options", "nosniff")]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    def _respond(self, environ: WSGIEnvironment) -> Response:
        method, path = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "/")
        session = environ["msm_fast.session"]
        if method == "GET" and path == "/":
            return HTTPStatus.OK, [("Content-Type", "text/html; charset=utf-8")], _page(session).encode()
        if method == "GET" and path == "/cart":
            return _json(_describe(session))
        if method == "PUT" and path.startswith("/cart/"):
            return self._put(session, path.removeprefix("/cart/"), _body(environ))
        if method == "POST" and path == "/cart":
            form = parse_qs(_body(environ))
            status, headers, body = self._put(session, form.get("item", [""])[0], form.get("quantity", [""])[0])
            return (
                (HTTPStatus.SEE_OTHER, [("Location", "/")], b"") if status is HTTPStatus.OK else (status, headers, body)
            )
        if method == "GET" and path == "/statistics":
            statistics = self._manager.statistics()
            return _json({"requests": statistics.requests, "round_trips": statistics.round_trips, "pid": os.getpid()})
        if method == "GET" and path == "/health":
            return _json({"pid": os.getpid()})
        return _json({"error": "There is no such page."}, HTTPStatus.NOT_FOUND)

    def _put(self, session: Session, item: str, quantity_text: str) -> Response:
        """Set the quantity of one item: an absolute number, so a balancer may safely send the request twice."""
        if item not in CATALOGUE:
            return _json({"error": "The shop does not sell that."}, HTTPStatus.NOT_FOUND)
        if not (quantity_text.isascii() and quantity_text.isdigit() and int(quantity_text) <= MOST_OF_AN_ITEM):
            return _json({"error": f"A quantity is 0 to {MOST_OF_AN_ITEM}."}, HTTPStatus.BAD_REQUEST)
        # A change inside a value that the session holds: nothing marks it as modified, the library notices.
        cart = session.setdefault("cart", {})
        if int(quantity_text):
            cart[item] = int(quantity_text)
        else:
            cart.pop(item, None)
        return _json(_describe(session))


def _body(environ: WSGIEnvironment) -> str:
    length = environ.get("CONTENT_LENGTH") or "0"
    body: bytes = environ["wsgi.input"].read(min(int(length), 4096))
    return body.decode("ascii", "replace")


def _json(content: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return status, [("Content-Type", "application/json")], json.dumps(content).encode()


def _describe(session: Any) -> dict[str, object]:
    return {
        "cart": dict(session.get("cart", {})),
        "is_new": session.is_new,
        "node": _node_of(session),
        "worker": os.environ.get("MSM_FAST_DEMO_WORKER", ""),
        "pid": os.getpid(),
    }


def _node_of(session: Any) -> str | None:
    session_id = msm_fast.SessionId.parse(str(session.id))
    return session_id.node if session_id else None


PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Shop</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 36rem; margin: 3rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
td, th {{ padding: .4rem .5rem; border-bottom: 1px solid #ddd; text-align: left }}
td.number, th.number {{ text-align: right }}
form {{ display: flex; gap: .4rem; justify-content: flex-end }}
input {{ width: 4rem; font: inherit; text-align: right }}
button {{ font: inherit }}
footer {{ margin-top: 2rem; color: #666; font-size: .9rem }}
</style>
<h1>Shop</h1>
<table>
<tr><th>Item</th><th class="number">Price</th><th class="number">In the cart</th></tr>
{rows}
<tr><th>Total</th><th></th><th class="number">{total}</th></tr>
</table>
<footer>Served by worker {worker} (process {pid}). {place}</footer>
</html>
"""

ROW = """<tr><td>{item}</td><td class="number">{price}</td><td><form method="post" action="/cart">
<input type="hidden" name="item" value="{item}">
<input type="number" name="quantity" min="0" max="{most}" value="{quantity}" aria-label="Quantity of {item}">
<button>Set</button></form></td></tr>"""


def _page(session: Any) -> str:
    cart = session.get("cart", {})
    rows = [
        ROW.format(item=item, price=_money(price), quantity=cart.get(item, 0), most=MOST_OF_AN_ITEM)
        for item, price in CATALOGUE.items()
    ]
    node = _node_of(session)
    if not cart:
        place = "Nothing is in the session, so none is stored."
    elif node:
        place = f"The session is on node {html.escape(node)}, with a copy on another."
    else:
        place = "The session is in this worker's memory."
    return PAGE.format(
        rows="\n".join(rows),
        total=_money(sum(CATALOGUE[item] * quantity for item, quantity in cart.items())),
        worker=html.escape(os.environ.get("MSM_FAST_DEMO_WORKER", "")),
        pid=os.getpid(),
        place=place,
    )


def _money(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02}"
