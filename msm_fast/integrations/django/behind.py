"""The engine's session behind a SessionStore: which scope has found it, and what of Django's is laid into it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, MutableMapping
from functools import cached_property
from typing import Any, TypeAlias

from django.contrib.sessions.backends.base import SessionBase, UpdateError
from django.utils.module_loading import import_string

from msm_fast.async_manager import AsyncSessionManager
from msm_fast.errors import MsmError
from msm_fast.integrations.django.expiry import EXPIRY, set_lifetimes
from msm_fast.integrations.django.known_settings import setting
from msm_fast.integrations.django.managers import managers
from msm_fast.manager import SessionManager
from msm_fast.policies import SaveResult
from msm_fast.request_scope import AsyncRequestScope, RequestScope
from msm_fast.session import Session

__all__ = ["SessionBehind"]

_KEY_SIZE_MIN = 8
"""What Django takes for a key."""

_Scope: TypeAlias = "RequestScope | AsyncRequestScope"


class SessionBehind(SessionBase):
    """What waits for nothing of a SessionStore.

    The content that Django's methods work on is the engine's session itself, once that is looked up. Where Django puts
    a dict in its place, as clear() does, it is laid into the session when that is saved.
    """

    _session_key: str | None = None
    """As it is set; `session_key` is what of it may be one."""

    # What each begins with, set on one only when it changes: a store is made for every request.
    accessed = False
    _content: MutableMapping[str, Any] | None = None
    _modified: bool | None = None
    _scope: _Scope | None = None
    _is_preloaded = False
    _failure: MsmError | None = None
    _request = ("POST", "")
    _has_end = False
    """Whether somebody is still to tell that the request has ended, when a lock is let go."""
    saves_always = False
    """Whether the session is stored by every request that has one: settings.SESSION_SAVE_EVERY_REQUEST."""
    is_ignored = False
    """Whether settings.ignore_requests matches: nothing is stored, and the client's cookie must stay as it is."""
    was_stored = False
    """Whether this request has stored it, so that the client may have to be told its key."""
    was_ended = False
    """Whether this request has ended its session, so that the client is to forget its key."""
    refusal: MsmError | None = None
    """What kept the request from being served though it is no fault of the application: the answer is to be 503."""
    _tasks: asyncio.Lock | None = None

    def __init__(self, session_key: str | None = None) -> None:
        self._session_key = session_key if session_key and len(session_key) >= _KEY_SIZE_MIN else None
        self._managers = managers()
        self._turn_of_threads = threading.RLock()
        self._stays_in_threads = self._managers.is_sticky

    @property
    def _session_cache(self) -> MutableMapping[str, Any]:
        """The content, as Django's own code knows it: an attribute that is not there before it is looked up."""
        if self._content is None:
            raise AttributeError("_session_cache")
        return self._content

    @_session_cache.setter
    def _session_cache(self, content: MutableMapping[str, Any]) -> None:
        self._content = content

    @_session_cache.deleter
    def _session_cache(self) -> None:
        self._content = None

    @property
    def session_key(self) -> str | None:
        """The session's key, or None: it has none yet, or what was set is too short for one."""
        key = self._session_key
        return key if key and len(key) >= _KEY_SIZE_MIN else None

    @cached_property
    def serializer(self) -> type:
        """As settings.SESSION_SERIALIZER says, for Django's own methods encode and decode."""
        serializer: type = import_string(setting("SESSION_SERIALIZER"))
        return serializer

    def get_session_cookie_age(self) -> int:
        """Return settings.SESSION_COOKIE_AGE, unless a subclass says otherwise."""
        age: int = setting("SESSION_COOKIE_AGE")
        return age

    def get_expire_at_browser_close(self) -> bool:
        """Return whether its cookie ends with the browser, as its expiry or else the settings say."""
        expiry = self.get(EXPIRY)
        return bool(setting("SESSION_EXPIRE_AT_BROWSER_CLOSE")) if expiry is None else expiry == 0

    def _turn_of_tasks(self) -> asyncio.Lock:
        """Return the lock of the task, of those that the view has in an event loop, that looks the session up."""
        if self._tasks is None:
            self._tasks = asyncio.Lock()
        return self._tasks

    @property
    def is_found(self) -> bool:
        """Whether the session behind was looked up, and used."""
        return self._scope is not None and not self._is_preloaded

    def _open(self, manager: SessionManager | AsyncSessionManager, key: str | None) -> _Scope:
        """Let a manager know the request, in place of what was known before."""
        scope = manager.request(key, *self._request)
        scope.takes_lock = self._has_end
        self.is_ignored = scope.is_ignored
        if self._scope is not None:
            self._scope.abandon()
        self._scope, self._is_preloaded = scope, False
        return scope

    def _take(self, scope: _Scope) -> Session:
        """Take what a scope has found, or a new session; an unknown key is given up."""
        session = scope.session
        try:
            state = session.state  # now it is looked up
        except MsmError as error:
            self._forget()
            self._failure = error
            raise
        self._is_preloaded = False
        self._session_key = str(state.session_id) if state.keeps_id else None
        return session

    def _take_preloaded(self) -> Session | None:
        """Take what was found before it was used, if anything was. Raises: what happened then, and at the first try."""
        if self._failure is not None:
            raise self._failure
        return self._take(self._scope) if self._is_preloaded and self._scope is not None else None

    def _begin_new(self) -> None:
        """Have a session behind that is to be stored as new."""
        scope = self._scope
        if scope is None or self._is_preloaded or scope.session.state.keeps_id:
            scope = self._open(self._managers.for_threads(), None)
        scope.session.store_anyway()

    def _is_gone(self, key: str, content: Mapping[str, Any] | None) -> bool:
        """Whether a session that was never looked at is gone. Raises: UpdateError if there is something to store."""
        if self.session_key is not None:
            return False
        self._forget()
        self._session_key = key
        if content is not None:
            raise UpdateError
        return True

    def _lay_in(self, content: Mapping[str, Any] | None) -> bool:
        """Let the session behind have content, and the life that its expiry gives; return whether that is over."""
        assert self._scope is not None
        session = self._scope.session
        if content is not None and content is not session:
            content = dict(content)
            session.clear()
            session.update(content)
        self._content = session
        is_alive = set_lifetimes(session, self._managers, self.get_session_cookie_age())
        if not is_alive:
            self._content = dict(session)
            session.invalidate()
        return not is_alive

    def _settle(self, result: SaveResult, is_over: bool) -> None:
        """Take note of what a save did. Raises: UpdateError if the session was ended meanwhile."""
        if (result.status == "unchanged" and not is_over) or self.is_ignored:
            return
        if self._scope is None:  # by another task of the view, for which this one has waited
            raise UpdateError
        session = self._scope.session
        self.was_stored |= result.status != "unchanged"
        if is_over:
            self._session_key = self.session_key or session.id
            self._forget()
        elif result.status == "invalidated":
            self._content = dict(session)
            self._forget()
            raise UpdateError
        elif session.state.keeps_id:
            self._session_key = session.id

    def _end(self) -> None:
        """End the session behind; what it held is still to be read here, as in Django's own stores."""
        assert self._scope is not None
        session = self._scope.session
        if self._content is session:
            self._content = dict(session)
        session.invalidate()

    def _rotate(self) -> None:
        assert self._scope is not None
        self._scope.session.rotate_id()
        self.modified = True

    def _forget(self) -> None:
        """Have no session behind any more."""
        if self._scope is not None:
            self._scope.abandon()
        self._scope, self._is_preloaded = None, False

    def _scope_for_threads(self) -> RequestScope:
        manager = self._managers.threads or self._managers.for_threads()
        scope = self._scope
        assert scope is not None
        if scope.manager is not manager or not self._has_end:
            scope = self._handed_to(manager)
        assert isinstance(scope, RequestScope)
        return scope

    def _scope_for_loop(self) -> AsyncRequestScope:
        scope = self._handed_to(self._managers.for_loop())
        assert isinstance(scope, AsyncRequestScope)
        return scope

    def _handed_to(self, manager: SessionManager | AsyncSessionManager) -> _Scope:
        """Return the scope of this manager: the one that found the session, or one that takes it over from there."""
        scope = self._scope
        assert scope is not None
        if scope.manager is not manager:
            before, scope = scope, manager.request(None, *self._request)
            scope.takes_lock = False
            scope.take_over(before)
            self._scope = scope
        if not self._has_end:  # it may be used for as long as a websocket is open
            scope.left_s = self._managers.settings.timeouts.request
        return scope
