"""Django's session middleware, for threads and for event loops."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.contrib.sessions.backends.base import UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware as DjangoSessionMiddleware
from django.core.handlers.exception import response_for_exception
from django.core.signals import got_request_exception
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers

from msm_fast.errors import MsmError
from msm_fast.integrations.cookies import is_never_stored
from msm_fast.integrations.django.cookie import session_cookie
from msm_fast.integrations.django.known_settings import cookie_settings, request_settings
from msm_fast.integrations.django.sessions import SessionStore
from msm_fast.integrations.session_headers import REFUSAL, REFUSAL_HEADERS, UNREACHABLE
from msm_fast.logs import Log

__all__ = ["SessionMiddleware"]

_log = Log("msm_fast.django")


class SessionMiddleware(DjangoSessionMiddleware):  # type: ignore[misc, unused-ignore]
    """Gives each request its session, and stores it before the response leaves.

    As Django's own, with the same settings SESSION_COOKIE_…, but:

    - in an event loop it waits for nothing but memcached, and has the session there before the view, so that
      request.session["cart"] works in an asynchronous view too;
    - what was changed inside a value is stored, and a request that changed nothing sets no cookie;
    - the cookie is deleted only by a request that ended the session itself; one that the store cannot find, or cannot
      be asked for, is left alone, and the answer to a request that needs it is 503 with Retry-After;
    - a new key, from a login or because a node was lost, reaches the client with an error page as well;
    - locks and patterns of the settings MSM_FAST are applied.

    With another SESSION_ENGINE it is Django's own.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        self._is_in_loop = iscoroutinefunction(self)
        self._is_ours = issubclass(self.SessionStore, SessionStore)

    def __call__(self, request: HttpRequest) -> Any:
        """Serve one request; in an event loop, return what is to be awaited."""
        if not self._is_ours:
            return super().__call__(request)
        if self._is_in_loop:
            return self._serve_in_loop(request)
        begun = self._begin(request, in_threads=True)
        try:
            response = self.get_response(request)
            store = getattr(request, "session", None)
            if not isinstance(store, SessionStore):
                return self.process_response(request, response)
            if response.status_code == 500 and store.refusal is not None:
                response = _refusal(store.refusal)
            try:
                if response.status_code < 500 and store.is_to_be_saved:
                    store.save()
            except UpdateError as error:
                raise _interrupted() from error
            except MsmError as error:
                response = _page_of(error, request)
            return _with_session(response, store, request)
        except UNREACHABLE as error:
            return _refusal(error)
        finally:
            begun.close()

    async def _serve_in_loop(self, request: HttpRequest) -> Any:
        begun = self._begin(request, in_threads=False)
        try:
            await begun.preload()
            response = await self._answer_in_loop(request)
            await begun.aclose()
        finally:
            begun.abandon()
        return response

    async def _answer_in_loop(self, request: HttpRequest) -> Any:
        try:
            response = await self.get_response(request)
            store = getattr(request, "session", None)
            if not isinstance(store, SessionStore):
                return await sync_to_async(self.process_response)(request, response)
            if response.status_code == 500 and store.refusal is not None:
                response = _refusal(store.refusal)
            try:
                if response.status_code < 500 and store.is_to_be_saved:
                    await store.asave()
            except UpdateError as error:
                raise _interrupted() from error
            except MsmError as error:
                response = await sync_to_async(_page_of, thread_sensitive=False)(error, request)
            return _with_session(response, store, request)
        except UNREACHABLE as error:
            return _refusal(error)

    def process_exception(self, request: HttpRequest, exception: BaseException) -> HttpResponse | None:
        """Answer 503 when the view could not have its session."""
        return _refusal(exception) if isinstance(exception, UNREACHABLE) else None

    def _begin(self, request: HttpRequest, *, in_threads: bool) -> SessionStore:
        cookie_name, saves_always = request_settings()
        store: SessionStore = self.SessionStore(request.COOKIES.get(cookie_name))
        store.begin_request(request.method, request.path, in_threads=in_threads, saves_always=saves_always)
        request.session = store
        return store


def _note_refusal(request: object = None, **_: object) -> None:
    """Remember that the error of which Django makes a page, below this middleware, is one to be answered by 503.

    Those of views come to process_exception, those of other middleware do not.
    """
    error, store = sys.exc_info()[1], getattr(request, "session", None)
    if isinstance(error, UNREACHABLE) and isinstance(store, SessionStore):
        store.refusal = error


got_request_exception.connect(_note_refusal)


def _with_session(response: HttpResponse, store: SessionStore, request: HttpRequest) -> HttpResponse:
    """Give the response the cookie, if it needs one, and what keeps shared caches from mixing up clients.

    An error page gets a cookie only for what was stored before: it stores nothing itself.
    """
    sets_cookie = store.may_change_cookie and _changes_cookie(response, store, request)
    headers = response.headers
    if store.accessed or sets_cookie:
        if "Vary" in headers:
            patch_vary_headers(response, ("Cookie",))
        else:
            headers["Vary"] = "Cookie"
    if sets_cookie and not ("Cache-Control" in headers and is_never_stored(headers["Cache-Control"])):
        headers["Cache-Control"] = "no-store"
    return response


def _changes_cookie(response: HttpResponse, store: SessionStore, request: HttpRequest) -> bool:
    """Set or delete the cookie if it is to be; return whether it was."""
    settings = cookie_settings()
    presented = request.COOKIES.get(settings.cookie_name)
    if store.was_ended and presented is not None and store.is_empty():
        response.delete_cookie(
            settings.cookie_name,
            path=settings.cookie_path,
            domain=settings.cookie_domain,
            samesite=settings.cookie_samesite,
        )
        return True
    key = store.session_key
    if key is None or not _needs_cookie(response, store, key != presented):
        return False
    max_age = None if store.get_expire_at_browser_close() else store.get_expiry_age()
    response.cookies[settings.cookie_name] = session_cookie(settings, key, max_age)
    return True


def _needs_cookie(response: HttpResponse, store: SessionStore, has_new_key: bool) -> bool:
    """Whether the client's cookie is to be set, as Django has it: with each change. Also when the id is another.

    After the save: what was changed inside a value is stored by then.
    """
    if response.status_code >= 500:
        return store.was_stored and has_new_key
    return store.was_stored or store.is_marked or (store.saves_always and store.is_found)


def _interrupted() -> SessionInterrupted:
    return SessionInterrupted(
        "The session was ended while this request was served; the user may have logged out in another window."
    )


def _page_of(error: MsmError, request: HttpRequest) -> HttpResponse:
    """Return the answer when the session could not be stored, as Django would have it if this were raised.

    It is made here because it may have to tell the client a new id: a login has stored that before, its own is dead.
    """
    if isinstance(error, UNREACHABLE):
        return _refusal(error)
    return cast("HttpResponse", response_for_exception(request, error))


def _refusal(error: BaseException) -> HttpResponse:
    """Return the answer when a session is out of reach: it may well exist, so the client keeps its cookie.

    Where a page of an error could not have its session, nothing else tells of that error.
    """
    _log.error("a request was refused: %s", error, exc_info=_unanswered(error))
    return cast("HttpResponse", HttpResponse(REFUSAL, status=503, headers=dict(REFUSAL_HEADERS)))


def _unanswered(error: BaseException) -> BaseException | None:
    """Return the error on whose page this one was met, if any; not what a view was just dealing with itself."""
    met_on = error.__context__
    if met_on is None or error.__cause__ is not None or isinstance(met_on, MsmError):
        return None
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(met_on.__traceback__)]
    catcher = next((name for name in modules if not name.startswith("asgiref.")), "")  # which raises it in its threads
    return met_on if catcher.startswith("django.core.handlers.") else None
