"""Sessions for any ASGI application: http and websocket, with what Starlette and FastAPI expect of a session."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Literal, TypeVar, cast

from msm_fast.async_manager import AsyncSessionManager
from msm_fast.errors import ConfigurationError
from msm_fast.integrations.cookies import CookieSettings, read_cookie
from msm_fast.integrations.session_headers import REFUSAL, UNREACHABLE, SessionHeaders
from msm_fast.integrations.session_mapping import SessionMapping
from msm_fast.logs import Log
from msm_fast.policies import SaveResult
from msm_fast.request_scope import AsyncRequestScope
from msm_fast.session import Session
from msm_fast.settings import Settings

__all__ = ["AsyncSession", "SessionMiddleware"]

_log = Log("msm_fast.asgi")
_TRY_AGAIN_LATER = 1013
"""Source: the registry of WebSocket close codes of RFC 6455."""

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
_Init = TypeVar("_Init", bound=Callable[..., None])

_WITH_SESSION = frozenset({"http", "websocket"})
_CHANGED = frozenset({b"vary", b"cache-control"})
"""Headers of the application's to which a session may add."""
_VARY = (b"vary", b"Cookie")
"""All that most responses need."""
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class AsyncSession(SessionMapping):
    """A dict of the session's attributes, which was looked up before the application was called."""

    def __init__(self, session: Session, save: Callable[[], Awaitable[SaveResult]]) -> None:
        super().__init__(session)
        self._save = save

    async def save(self) -> SaveResult:
        """Store what changed now, not when the response starts or ends; its lock, if it has one, is let go.

        Raises: SessionUnavailable, SerializationError, ConflictError.
        """
        return await self._save()


def _app_may_be_named(init: _Init) -> _Init:
    """Let callers name app, as Starlette's own middleware does, though type checkers know it by its place alone.

    They would refuse it in Starlette's add_middleware: one of the settings, which it takes by any name, might be "app".
    """

    @functools.wraps(init)
    def take(self: SessionMiddleware, *args: Any, **named: Any) -> None:
        init(self, *((named.pop("app"), *args) if "app" in named else args), **named)

    return cast(_Init, take)


class SessionMiddleware:
    """Gives app its session in scope["session"], a dict that stores itself.

    The session is looked up before app is called, which costs a round trip if the client has one, and stored when app
    starts its response, before the headers leave: a client that follows a redirect at once finds what was written. What
    is written later, by a streaming body or a background task, is stored when app returns, but can no longer set a
    cookie. A websocket's session is stored when it is accepted and when app returns or the client goes away, and in
    between by `await session.save()`. A request that app ends with an exception stores nothing more.

    When no copy of a session can be reached, or its lock cannot be had in time, the answer to a request that looks at
    it is 503 with Retry-After, and the cookie stays as it is; a websocket that was accepted is closed with code 1013.

    manager: made of settings if it is not given, and then closed when the server shuts down, if it tells (lifespan).
    secret_key: not used, and may stay where Starlette's middleware had one: the cookie holds an id, nothing to sign.
    session_cookie, max_age, path, same_site, https_only, domain, partitioned: of the cookie, as Starlette's middleware
        has them; max_age: seconds from the last response that used the session, also for max_inactive among settings by
        name if that is not given; None: until the browser ends. cookie: all that in one, instead.
    settings: the fields of Settings, by name. What the native serializer does not know, such as a subclass of dict or a
        member of an enumeration, is stored as Starlette's own sessions have it, as JSON, if serializer is not given.
    Raises: ConfigurationError.
    """

    @_app_may_be_named
    def __init__(
        self,
        app: App,
        /,
        manager: AsyncSessionManager | None = None,
        *,
        cookie: CookieSettings | None = None,
        secret_key: object = None,
        session_cookie: str = "session",
        max_age: int | None = None,
        path: str = "/",
        same_site: Literal["lax", "strict", "none"] = "lax",
        https_only: bool = False,
        domain: str | None = None,
        partitioned: bool = False,
        **settings: Any,
    ) -> None:
        described = CookieSettings(
            name=session_cookie,
            path=path,
            domain=domain,
            secure=https_only or None,
            same_site=_same_site(same_site),
            max_age=max_age,
            partitioned=partitioned,
            rolling=max_age is not None,
        )
        if cookie is not None:
            _check_cookie(cookie, described)
        if manager is not None:
            _check_manager(manager, settings)
        self._app = app
        self._is_owner = manager is None
        self._has_shut_down = False
        self._manager = manager or _manager_of(settings, max_age)
        self._cookie = cookie or described

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind not in _WITH_SESSION:
            if kind == "lifespan" and self._is_owner:
                self._open_again()
                send = self._closing_last(send)
            await self._app(scope, receive, send)
            return
        presented = read_cookie(_cookie_header(scope), self._cookie.name)
        method = scope["method"] if kind == "http" else "WEBSOCKET"
        request = self._manager.request(presented, method, scope["path"])
        headers = SessionHeaders(request, self._cookie, presented, is_https=scope.get("scheme") in ("https", "wss"))
        response = _Response(request, headers, scope, send)
        # Not with the response, whose send belongs to the server: that has the scope, which has the session.
        scope["session"] = AsyncSession(request.session, functools.partial(_save, request, headers))
        if kind == "websocket":
            receive = response.listening(receive)
        try:
            await request.load()
            try:
                await self._run(scope, receive, response)
            except Exception as error:
                raised = _raised(error)
                if not all(isinstance(each, UNREACHABLE) for each in raised):
                    raise
                if raised:
                    await response.refuse(raised[0])
            await request.close()
        finally:
            request.abandon()

    async def _run(self, scope: Scope, receive: Receive, response: _Response) -> None:
        """Run the application, and store what it wrote; a websocket whose client has gone ends by an exception."""
        try:
            await self._app(scope, receive, response.send)
        except Exception:
            if response.has_client_gone:
                await response.end()
            raise
        await response.end()

    def _open_again(self) -> None:
        """Have an open manager where app is started after a shutdown: by tests, or for each event in AWS Lambda."""
        if self._has_shut_down:
            self._has_shut_down = False
            former, self._manager = self._manager, AsyncSessionManager(self._manager.settings)
            self._manager.share_memory(former)

    def _closing_last(self, send: Send) -> Send:
        """Return a send that closes the manager when app has shut down."""

        async def send_and_close(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                self._has_shut_down = True
                await self._manager.close()
            await send(message)

        return send_and_close


class _RefusedError(OSError):
    """A message of a websocket was not sent, as that was refused; servers raise an OSError when a client has gone."""


async def _save(request: AsyncRequestScope, headers: SessionHeaders) -> SaveResult:
    """Store what app wrote."""
    result = await request.save()
    headers.note_save(result, _log)
    return result


class _Response:
    """What app sends, with the session stored before its headers leave."""

    def __init__(self, request: AsyncRequestScope, session_headers: SessionHeaders, scope: Scope, send: Send) -> None:
        self._request = request
        self._session_headers = session_headers
        self._is_websocket = scope["type"] == "websocket"
        self._may_answer = "websocket.http.response" in (scope.get("extensions") or ())
        self._send = send
        self._is_refused = False
        self._is_accepted = False
        self._is_closed = False
        self.has_client_gone = False

    def listening(self, receive: Receive) -> Receive:
        """Return a receive that notes when the websocket's client has gone."""

        async def receive_and_note() -> Message:
            message = await receive()
            self.has_client_gone |= message["type"] == "websocket.disconnect"
            return message

        return receive_and_note

    def send(self, message: Message) -> Awaitable[None]:
        """Pass one message of app's on; to be awaited."""
        if self._session_headers.have_left and not self._is_refused:
            return self._send_on(message) if self._is_websocket else self._send(message)
        return self._begin(message)

    async def _begin(self, message: Message) -> None:
        """Pass a message on, and if it starts the response store the session first."""
        if self._is_refused:
            if message["type"] == "websocket.send":  # who only sends would go on for ever
                raise _RefusedError("the websocket was refused: its session is not available")
            return
        if message["type"] in _STARTS:
            try:
                await _save(self._request, self._session_headers)
            except UNREACHABLE as error:
                await self.refuse(error)
                return
            self._session_headers.have_left = self._request.is_open_ended = True
            self._is_accepted = message["type"] == "websocket.accept"
            if self._request.session.was_used:
                message = {**message, "headers": self._with_session(message.get("headers", ()))}
        else:
            self._is_closed = message["type"] == "websocket.close"
        await self._send(message)

    async def _send_on(self, message: Message) -> None:
        """Pass a message of an open websocket on, and note if its client has gone: who never receives hears it here."""
        self._is_closed |= message["type"] == "websocket.close"
        try:
            await self._send(message)
        except OSError:
            self.has_client_gone = True
            raise

    async def end(self) -> None:
        """Store what app wrote after it had started its response."""
        session = self._request.session
        if self._session_headers.have_left and session.was_used and session.state.may_need_saving:
            await _save(self._request, self._session_headers)

    async def refuse(self, error: BaseException) -> None:
        """Answer that the session is not available, if nothing was answered yet."""
        if self._is_refused:
            return
        _log.error("a request was refused: %s", error)
        self._is_refused = True
        if self.has_client_gone:
            return
        if self._is_closed or (self._session_headers.have_left and not self._is_accepted):
            raise error
        if self._is_accepted or (self._is_websocket and not self._may_answer):
            await self._send({"type": "websocket.close", "code": _TRY_AGAIN_LATER})
        else:
            answer = "websocket.http.response" if self._is_websocket else "http.response"
            await self._send(
                {"type": f"{answer}.start", "status": 503, "headers": _encoded(self._session_headers.of_refusal())}
            )
            await self._send({"type": f"{answer}.body", "body": REFUSAL})

    def _with_session(self, raw_headers: Iterable[tuple[bytes, bytes]]) -> Headers:
        headers = list(raw_headers)
        changed = [header for header in headers if header[0].lower() in _CHANGED]
        if self._session_headers.set_cookie is None and not changed:
            headers.append(_VARY)
            return headers
        ours = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in changed]
        self._session_headers.add_to(ours)
        return [header for header in headers if header not in changed] + _encoded(ours)


def _check_cookie(cookie: object, described: CookieSettings) -> None:
    if not isinstance(cookie, CookieSettings):
        raise ConfigurationError("cookie", cookie, "a CookieSettings(…)")
    if described != CookieSettings():
        raise ConfigurationError(
            "cookie", cookie, "either cookie, or session_cookie, max_age, path, … by name, not both"
        )


def _check_manager(manager: object, settings: dict[str, Any]) -> None:
    if not isinstance(manager, AsyncSessionManager):  # and is not shown: it may be the secret key, Starlette's first
        raise ConfigurationError("manager", type(manager), "an AsyncSessionManager(…), or none and settings by name")
    if settings:
        raise ConfigurationError("settings", sorted(settings), "a manager, or settings by name, not both")


def _manager_of(settings: dict[str, Any], max_age: int | None) -> AsyncSessionManager:
    if not isinstance(settings.get("nodes"), Settings):
        settings.setdefault("serializer", ("native", "json"))
        if max_age is not None:
            settings.setdefault("max_inactive", max_age)
    return AsyncSessionManager(**settings)


def _raised(error: Exception) -> list[Exception]:
    """Return what app has raised, but for what only says that it has heard of a refusal, which is in the log.

    What tasks raise comes in an ExceptionGroup, from asyncio.TaskGroup as from anyio's.
    """
    grouped = getattr(error, "exceptions", None)  # ExceptionGroup came with Python 3.11
    if isinstance(grouped, tuple) and grouped:
        return [raised for each in grouped for raised in _raised(each)]
    has_heard = isinstance(error, _RefusedError) or isinstance(error.__context__, _RefusedError)  # so frameworks say it
    return [] if has_heard else [error]


def _cookie_header(scope: Scope) -> str:
    """Return what the client sent as cookies; over HTTP/2 that may be several headers."""
    return b"; ".join([value for name, value in scope["headers"] if name == b"cookie"]).decode("latin-1")


def _encoded(headers: Iterable[tuple[str, str]]) -> Headers:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]


def _same_site(value: object) -> Literal["Lax", "Strict", "None"]:
    capitalized = value.capitalize() if isinstance(value, str) else None
    if capitalized not in ("Lax", "Strict", "None"):
        raise ConfigurationError("same_site", value, "'lax', 'strict' or 'none'")
    return cast('Literal["Lax", "Strict", "None"]', capitalized)
