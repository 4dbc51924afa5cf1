"""A shop in Django: its carts and logins outlive a worker and a memcached node."""

from __future__ import annotations

import os

from django.contrib.auth import authenticate, login, logout
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest, HttpResponseForbidden, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST

GOODS = ("tea", "honey", "bread", "cheese")


@require_GET
def show(request: HttpRequest) -> HttpResponse:
    """Show the goods and the cart."""
    return render(request, "shop.html", {"goods": GOODS, **describe(request)})


@require_http_methods(["GET", "POST"])
def cart(request: HttpRequest) -> HttpResponse:
    """Tell a program what is in the cart, and whose it is; or put a line into it."""
    return add(request) if request.method == "POST" else JsonResponse(describe(request))


def add(request: HttpRequest) -> HttpResponse:
    """Put a line into the cart."""
    item, quantity = request.POST.get("item"), request.POST.get("quantity", "")
    if item not in GOODS or not (quantity.isdecimal() and 1 <= int(quantity) <= 999):
        return HttpResponseBadRequest()
    # The list is changed where it is: no session.modified = True, it is noticed.
    request.session.setdefault("cart", []).append({"item": item, "quantity": int(quantity)})
    return redirect("shop")


@require_POST
def log_in(request: HttpRequest) -> HttpResponse:
    """Let the session belong to a customer; the cart stays."""
    user = authenticate(request, username=request.POST.get("username"), password=request.POST.get("password"))
    if user is None:
        return HttpResponseForbidden("There is no customer of that name and password.\n", content_type="text/plain")
    login(request, user)  # gives the session a new id: whoever knew the one before is left with a dead one
    return redirect("shop")


@require_POST
def log_out(request: HttpRequest) -> HttpResponse:
    """End the session, in memcached too."""
    logout(request)
    return redirect("shop")


def describe(request: HttpRequest) -> dict[str, object]:
    """Return what both kinds of reader want to know."""
    return {
        "customer": request.user.get_username() or None,
        "cart": request.session.get("cart", []),
        "worker": os.getpid(),
    }
