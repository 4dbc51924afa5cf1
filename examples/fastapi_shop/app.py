"""A shop in FastAPI: its carts and logins outlive a worker and a memcached node."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.templating import Jinja2Templates

from msm_fast.integrations.asgi import AsyncSession, SessionMiddleware

GOODS = ("tea", "honey", "bread", "cheese")
CUSTOMERS = {"ada": "countess"}  # a shop that is open has hashes of the passwords, in its database

NODES = os.environ.get("MSM_FAST_NODES")  # "n1:10.0.0.1:11211,n2:10.0.0.2:11211"; none: in this process only
ROUTE = os.environ.get("MSM_FAST_ROUTE")  # this worker's name, where the balancer goes by it

# A cart that cannot be reached is answered by 503, not by an empty one.
NON_STICKY: dict[str, Any] = {"nodes": NODES, "on_cluster_lost": "error"}
STICKY: dict[str, Any] = {**NON_STICKY, "sticky": True, "route": ROUTE, "backup": "sync"}

app = FastAPI()
app.add_middleware(
    SessionMiddleware,
    same_site="lax",  # other sites' forms come without the cookie
    https_only=False,  # True where the shop is served by https
    **(STICKY if ROUTE else NON_STICKY),
)
templates = Jinja2Templates(Path(__file__).parent / "templates")


def session_of(request: Request) -> AsyncSession:
    """Return request.session, by the name of its type."""
    session: AsyncSession = request.scope["session"]
    return session


Session = Annotated[AsyncSession, Depends(session_of)]


@app.get("/")
async def show(request: Request, session: Session) -> HTMLResponse:
    """Show the goods and the cart."""
    return templates.TemplateResponse(request, "shop.html", {"goods": GOODS, **describe(session)})


@app.get("/cart")
async def cart(session: Session) -> dict[str, object]:
    """Tell a program what is in the cart, and whose it is."""
    return describe(session)


@app.post("/cart")
async def add(
    item: Annotated[str, Form()], quantity: Annotated[int, Form(ge=1, le=999)], session: Session
) -> RedirectResponse:
    """Put a line into the cart."""
    if item not in GOODS:
        raise HTTPException(400)
    # The list is changed where it is: that is noticed.
    session.setdefault("cart", []).append({"item": item, "quantity": quantity})
    return RedirectResponse("/", 303)


@app.post("/login")
async def log_in(
    username: Annotated[str, Form()], password: Annotated[str, Form()], session: Session
) -> RedirectResponse:
    """Let the session belong to a customer; the cart stays."""
    if CUSTOMERS.get(username) != password:
        raise HTTPException(403, "There is no customer of that name and password.")
    session.rotate_id()  # whoever knew the id before is left with a dead one
    session["customer"] = username
    return RedirectResponse("/", 303)


@app.post("/logout")
async def log_out(session: Session) -> RedirectResponse:
    """End the session, in memcached too."""
    session.clear()
    return RedirectResponse("/", 303)


def describe(session: AsyncSession) -> dict[str, object]:
    """Return what both kinds of reader want to know."""
    return {"customer": session.get("customer"), "cart": session.get("cart", []), "worker": os.getpid()}
