"""Views: each task on a synchronous view, on an asynchronous one, and on one that awaits its session."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from django.contrib.auth import alogin, alogout, login, logout
from django.contrib.auth.models import User
from django.contrib.sessions.backends.signed_cookies import SessionStore as SignedSession
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path

from msm_fast import MsmError

BACKEND = "django.contrib.auth.backends.ModelBackend"

during: dict[str, Callable[[], object]] = {}
"""What happens, by name of the view, once it has looked at its session, or saved it: another request, or a fault."""


def ada() -> User:
    return User(pk=1, username="ada", password="x")


def _wait(task: str) -> None:
    happening = during.pop(task, None)
    if happening is not None:
        happening()


def put(request: HttpRequest) -> HttpResponse:
    request.session.get("user")
    _wait("put")
    request.session.update(request.GET.dict())
    return HttpResponse("put")


def append(request: HttpRequest) -> HttpResponse:
    cart = request.session.get("cart")
    if cart is None:
        request.session["cart"] = cart = []
    cart.append(request.GET["item"])
    return HttpResponse(str(len(cart)))


def read(request: HttpRequest) -> HttpResponse:
    found = dict(request.session.items())
    _wait("read")
    return JsonResponse(found)


def caught(request: HttpRequest) -> HttpResponse:
    try:
        return HttpResponse(request.GET["user"])
    except KeyError:
        return HttpResponse(request.session["user"])


def nothing(request: HttpRequest) -> HttpResponse:
    return HttpResponse("nothing")


def enter(request: HttpRequest) -> HttpResponse:
    login(request, ada(), BACKEND)
    return HttpResponse(request.session.session_key)


def enter_and_fail(request: HttpRequest) -> HttpResponse:
    login(request, ada(), BACKEND)
    raise RuntimeError("after the login")


def enter_and_put(request: HttpRequest) -> HttpResponse:
    login(request, ada(), BACKEND)
    _wait("enter_and_put")
    request.session["last"] = object() if "bad" in request.GET else "seen"
    return HttpResponse("entered")


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("left")


def rotate(request: HttpRequest) -> HttpResponse:
    request.session.cycle_key()
    return HttpResponse(request.session.session_key)


def empty(request: HttpRequest) -> HttpResponse:
    request.session.clear()
    return HttpResponse("empty")


def spoil(request: HttpRequest) -> HttpResponse:
    request.session["bad"] = object()
    return HttpResponse("spoilt")


def expire(request: HttpRequest) -> HttpResponse:
    request.session.set_expiry(int(request.GET["seconds"]))
    return HttpResponse("expires")


def other_engine(request: HttpRequest) -> HttpResponse:
    request.session = SignedSession()
    request.session["user"] = "ada"
    return HttpResponse("another")


def save_now(request: HttpRequest) -> HttpResponse:
    request.session["saved"] = "now"
    request.session.save()
    _wait("save_now")
    return HttpResponse("saved")


def touch(request: HttpRequest) -> HttpResponse:
    request.session.modified = True
    return HttpResponse("touched")


def read_twice(request: HttpRequest) -> HttpResponse:
    """Look at the session once more after that has failed."""
    for _ in range(2):
        with suppress(MsmError):
            return HttpResponse(str(request.session.get("user")))
    return HttpResponse("neither time")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Look at the session in the body, which is sent when the request has ended."""
    return StreamingHttpResponse(request.session["user"] for _ in range(1))


def refuse(request: HttpRequest) -> HttpResponse:
    request.session["refused"] = True
    return HttpResponse("no", status=500)


async def _aput(request: HttpRequest) -> HttpResponse:
    await request.session.aget("user")
    _wait("put")
    await request.session.aupdate(request.GET.dict())
    return HttpResponse("put")


async def _aappend(request: HttpRequest) -> HttpResponse:
    cart = await request.session.asetdefault("cart", [])
    cart.append(request.GET["item"])
    return HttpResponse(str(len(cart)))


async def _aread(request: HttpRequest) -> HttpResponse:
    found = dict(await request.session.aitems())
    _wait("read")
    return JsonResponse(found)


async def _aenter(request: HttpRequest) -> HttpResponse:
    await alogin(request, ada(), BACKEND)
    return HttpResponse(request.session.session_key)


async def _aenter_and_fail(request: HttpRequest) -> HttpResponse:
    await alogin(request, ada(), BACKEND)
    raise RuntimeError("after the login")


async def _aenter_and_put(request: HttpRequest) -> HttpResponse:
    await alogin(request, ada(), BACKEND)
    _wait("enter_and_put")
    await request.session.aset("last", object() if "bad" in request.GET else "seen")
    return HttpResponse("entered")


async def _aleave(request: HttpRequest) -> HttpResponse:
    await alogout(request)
    return HttpResponse("left")


async def _arotate(request: HttpRequest) -> HttpResponse:
    await request.session.acycle_key()
    return HttpResponse(request.session.session_key)


async def _aspoil(request: HttpRequest) -> HttpResponse:
    await request.session.aset("bad", object())
    return HttpResponse("spoilt")


async def _aexpire(request: HttpRequest) -> HttpResponse:
    await request.session.aset_expiry(int(request.GET["seconds"]))
    return HttpResponse("expires")


async def _arefuse(request: HttpRequest) -> HttpResponse:
    await request.session.aset("refused", True)
    return HttpResponse("no", status=500)


TASKS = [
    put,
    append,
    read,
    caught,
    nothing,
    enter,
    enter_and_fail,
    enter_and_put,
    leave,
    rotate,
    empty,
    spoil,
    expire,
    other_engine,
    save_now,
    touch,
    read_twice,
    stream,
    refuse,
]
AWAITING = {
    "put": _aput,
    "append": _aappend,
    "read": _aread,
    "enter": _aenter,
    "enter_and_fail": _aenter_and_fail,
    "enter_and_put": _aenter_and_put,
    "leave": _aleave,
    "rotate": _arotate,
    "spoil": _aspoil,
    "expire": _aexpire,
    "refuse": _arefuse,
}


def _asynchronous(view: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], Awaitable[HttpResponse]]:
    async def asynchronous(request: HttpRequest) -> HttpResponse:
        return view(request)

    return asynchronous


def _paths() -> list[Any]:
    paths = []
    for view in TASKS:
        name = view.__name__
        paths.append(path(f"sync/{name}", view))
        paths.append(path(f"async/{name}", _asynchronous(view)))
        paths.append(path(f"awaiting/{name}", AWAITING.get(name) or _asynchronous(view)))
    return paths


urlpatterns = _paths()

__all__ = ["during", "urlpatterns"]
