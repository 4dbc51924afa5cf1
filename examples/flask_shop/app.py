"""A shop in Flask: its carts and logins outlive a worker and a memcached node."""

from __future__ import annotations

import os

from flask import Flask, Response, abort, redirect, render_template, request, session
from werkzeug.wrappers import Response as Redirection

from msm_fast.integrations.flask import MsmFast

GOODS = ("tea", "honey", "bread", "cheese")
CUSTOMERS = {"ada": "countess"}  # a shop that is open has hashes of the passwords, in its database

NODES = os.environ.get("MSM_FAST_NODES")  # "n1:10.0.0.1:11211,n2:10.0.0.2:11211"; none: in this process only
ROUTE = os.environ.get("MSM_FAST_ROUTE")  # this worker's name, where the balancer goes by it

# A cart that cannot be reached is answered by 503, not by an empty one.
NON_STICKY = {"nodes": NODES, "on_cluster_lost": "error"}
STICKY = {**NON_STICKY, "sticky": True, "route": ROUTE, "backup": "sync"}

app = Flask(__name__)
app.config.update(
    MSM_FAST=STICKY if ROUTE else NON_STICKY,
    SESSION_COOKIE_SAMESITE="Lax",  # other sites' forms come without it
    SESSION_COOKIE_SECURE=False,  # True where the shop is served by https
)
MsmFast(app)


@app.get("/")
def show() -> str:
    """Show the goods and the cart."""
    return render_template("shop.html", goods=GOODS, **describe())


@app.get("/cart")
def cart() -> dict[str, object]:
    """Tell a program what is in the cart, and whose it is."""
    return describe()


@app.post("/cart")
def add() -> Redirection:
    """Put a line into the cart."""
    item, quantity = request.form["item"], request.form.get("quantity", 0, type=int)
    if item not in GOODS or not 1 <= quantity <= 999:
        abort(400)
    # The list is changed where it is: no session.modified = True, it is noticed.
    session.setdefault("cart", []).append({"item": item, "quantity": quantity})
    return redirect("/", 303)


@app.post("/login")
def log_in() -> Redirection:
    """Let the session belong to a customer; the cart stays."""
    name = request.form["username"]
    if CUSTOMERS.get(name) != request.form["password"]:
        abort(Response("There is no customer of that name and password.\n", 403, mimetype="text/plain"))
    session.rotate_id()  # whoever knew the id before is left with a dead one
    session["customer"] = name
    return redirect("/", 303)


@app.post("/logout")
def log_out() -> Redirection:
    """End the session, in memcached too."""
    session.clear()
    return redirect("/", 303)


def describe() -> dict[str, object]:
    """Return what both kinds of reader want to know."""
    return {"customer": session.get("customer"), "cart": session.get("cart", []), "worker": os.getpid()}
