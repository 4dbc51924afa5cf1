"""Django's SessionStore, laid over the life of a request that a manager knows."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from django.contrib.sessions.backends.base import CreateError

from msm_fast.errors import ApplicationStopped
from msm_fast.integrations.django.behind import SessionBehind
from msm_fast.integrations.django.expiry import EXPIRY
from msm_fast.request_scope import AsyncRequestScope, RequestScope
from msm_fast.session import Session

__all__ = ["SessionStore"]


class SessionStore(SessionBehind):
    """One request's session, as Django's middleware, views and test client use it.

    It is looked up when it is first used. What is changed inside a value counts as modified with no word of the view,
    unless that sets `modified` to False. The methods with an "a" in front are awaited through the manager of the
    running event loop; one request may use both kinds.

    Without msm_fast's own middleware it takes no lock, and no pattern in the settings can match the request.

    Raises, from any first use: SessionUnavailable if no copy could be reached and CorruptRecord if none could be read,
    where the settings say so; LockTimeout. The session keeps its key then, and the client its cookie.
    Thread-safety: one request's own; its threads, or its tasks in an event loop, may share it.
    """

    # -- for the middleware

    def begin_request(self, method: str, path: str, *, in_threads: bool, saves_always: bool = False) -> None:
        """Let the settings that go by a request know it; close or aclose is to be called however it ends.

        in_threads: no event loop serves it, or only for a while. saves_always: settings.SESSION_SAVE_EVERY_REQUEST.
        """
        self._request = (method, path)
        self._has_end = True
        self._stays_in_threads |= in_threads
        self.saves_always = saves_always

    async def preload(self) -> None:
        """Look the session up, so that synchronous code in an event loop need not wait; what fails is raised later."""
        if self.session_key is None or self._stays_in_threads:
            return
        try:
            scope = self._open(self._managers.for_loop(), self.session_key)
            assert isinstance(scope, AsyncRequestScope)
            self._is_preloaded = True
            await scope.load()
        except ApplicationStopped as error:
            self._failure = error

    def close(self) -> None:
        """End the request, however it went: who uses the session after that, as a body may, locks nothing."""
        self._has_end = False
        scope = self._scope
        if isinstance(scope, RequestScope):
            scope.close()
        elif scope is not None:
            scope.abandon()

    async def aclose(self) -> None:
        """As close; if the request was broken off, abandon it instead."""
        self._has_end = False
        scope = self._scope
        if isinstance(scope, AsyncRequestScope):
            if self._is_preloaded:
                await scope.save()  # stores nothing, but its rules learn that it was looked up in vain
            await scope.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """As close without waiting: what is left to do is done in the background."""
        self._has_end = False
        if self._scope is not None:
            self._scope.abandon()

    @property
    def is_to_be_saved(self) -> bool:
        """Whether there may be something to store, or to be learned of a request that left it as it was."""
        modified, scope = self._modified, self._scope
        if modified or self.saves_always:
            return self._session_key is not None or not self.is_empty()
        if modified is not None or scope is None or self._is_preloaded:
            return False
        return scope.session.state.may_need_saving or (scope.is_learned_of and self._session_key is not None)

    @property
    def is_marked(self) -> bool:
        """Whether one of its methods, or the view, has marked it as modified; what was changed in a value does not."""
        return self._modified is True

    @property
    def may_change_cookie(self) -> bool:
        """Whether the client may have to be told something of it."""
        may_change = self.was_stored or self.was_ended or self.saves_always or self._modified is True
        return may_change and not self.is_ignored

    # -- what Django's own code uses

    @property
    def modified(self) -> bool:
        """Whether it is to be stored: something was changed, also inside a value, or it has to move to another node.

        What is assigned counts instead, until the next change that is made by a method of the session.
        """
        if self._modified is not None or self._scope is None or self._is_preloaded:
            return bool(self._modified)
        state = self._scope.session.state
        return state.must_store or state.attributes.is_changed

    @modified.setter
    def modified(self, value: bool) -> None:
        self._modified = value

    def exists(self, session_key: str | None) -> bool:
        """Whether there is a session of that key. Raises: SessionUnavailable if nobody can tell."""
        return bool(session_key) and _is_known(self._managers.for_threads().load(str(session_key)))

    async def aexists(self, session_key: str | None) -> bool:
        """As exists."""
        if self._stays_in_threads:
            return await asyncio.to_thread(self.exists, session_key)
        return bool(session_key) and _is_known(await self._managers.for_loop().load(str(session_key)))

    def create(self) -> None:
        """Store what there is as a new session with a new key."""
        self._session_key = None
        self.save(must_create=True)
        self.modified = True

    async def acreate(self) -> None:
        """As create."""
        self._session_key = None
        await self.asave(must_create=True)
        self.modified = True

    def load(self) -> MutableMapping[str, Any]:
        """Look the session up now and return it; one that does not exist is empty and has no key."""
        return self._take(self._open(self._managers.threads or self._managers.for_threads(), self._session_key))

    async def aload(self) -> MutableMapping[str, Any]:
        """As load."""
        if self._stays_in_threads:
            return await asyncio.to_thread(self.load)
        scope = self._open(self._managers.for_loop(), self.session_key)
        assert isinstance(scope, AsyncRequestScope)
        await scope.load()
        return self._take(scope)

    def save(self, must_create: bool = False) -> None:
        """Store what was changed.

        Raises: CreateError if must_create and there is a session of this key; UpdateError if it was ended meanwhile;
        SessionUnavailable, SerializationError, ConflictError where the settings say so.
        """
        if must_create and self.session_key is not None and self.exists(self.session_key):
            raise CreateError
        content = self._content
        if must_create or self.session_key is None:
            self._begin_new()
        elif self._scope is None or self._is_preloaded:
            key = self.session_key
            self._look_up()
            if self._is_gone(key, content):
                return
        elif self._modified is None and content is self._scope.session:  # its expiry cannot have changed
            result = self._scope_for_threads().save()
            if result.status != "unchanged":
                self._settle(result, False)
            return
        is_over = self._lay_in(content)
        self._settle(self._scope_for_threads().save(), is_over)

    async def asave(self, must_create: bool = False) -> None:
        """As save."""
        if self._stays_in_threads:
            await asyncio.to_thread(self.save, must_create)
            return
        if must_create and self.session_key is not None and await self.aexists(self.session_key):
            raise CreateError
        if self._tasks is not None:
            async with self._tasks:  # another one may be looking it up
                pass
        content = self._content
        if must_create or self.session_key is None:
            self._begin_new()
        elif self._scope is None or self._is_preloaded:
            key = self.session_key
            await self._alook_up()
            if self._is_gone(key, content):
                return
        elif self._modified is None and content is self._scope.session:  # its expiry cannot have changed
            self._settle(await self._scope_for_loop().save(), False)
            return
        is_over = self._lay_in(content)
        self._settle(await self._scope_for_loop().save(), is_over)

    def delete(self, session_key: str | None = None) -> None:
        """End the session of that key, or this one, at once; a slower request cannot bring it back."""
        if session_key is None or session_key == self.session_key:
            if self.session_key is not None and not self.is_found:
                self._look_up()
            if self.session_key is not None:
                self._end()
                self._scope_for_threads().save()
                self._forget()
            return
        manager = self._managers.for_threads()
        session = manager.load(session_key)
        if session is not None:
            manager.invalidate(session)

    async def adelete(self, session_key: str | None = None) -> None:
        """As delete."""
        if self._stays_in_threads:
            await asyncio.to_thread(self.delete, session_key)
            return
        if session_key is None or session_key == self.session_key:
            async with self._turn_of_tasks():
                if self.session_key is not None and not self.is_found:
                    await self._alook_up()
            if self.session_key is not None:
                self._end()
                await self._scope_for_loop().save()
                self._forget()
            return
        manager = self._managers.for_loop()
        session = await manager.load(session_key)
        if session is not None:
            await manager.invalidate(session)

    def cycle_key(self) -> None:
        """Give the session another key at once, with all it holds; the old one is dead. Django does so at login."""
        self._get_session()
        if self.session_key is not None and self.is_found:
            self._rotate()
            self.save()
        else:
            key = self.session_key
            self.create()
            self.delete(key) if key else None

    async def acycle_key(self) -> None:
        """As cycle_key."""
        await self._aget_session()
        if self.session_key is not None and self.is_found:
            self._rotate()
            await self.asave()
        else:
            key = self.session_key
            await self.acreate()
            await self.adelete(key) if key else None

    def flush(self) -> None:
        """End the session at once; what is written then begins a new one. Django does so at logout."""
        super().flush()
        self.was_ended = True

    async def aflush(self) -> None:
        """As flush."""
        self.clear()
        await self.adelete()
        self._session_key = None
        self.was_ended = True

    @classmethod
    def clear_expired(cls) -> None:
        """Do nothing: memcached drops what has expired."""

    @classmethod
    async def aclear_expired(cls) -> None:
        """As clear_expired."""

    # -- what its other methods are made of

    def _get_session(self, no_load: bool = False) -> MutableMapping[str, Any]:
        self.accessed = True
        if self._content is not None:
            return self._content
        with self._turn_of_threads:  # those that look at it at once all have what the first of them finds
            content = self._content
            if content is None:
                has_none = self._session_key is None or no_load
                found = self._begin_empty() if has_none else self._look_up()
                if self._content is None:  # else a task of the view has emptied it meanwhile
                    self._content = found
                content = self._content
            return content

    def _begin_empty(self) -> Session:
        return self._take(self._open(self._managers.for_threads(), None))

    def _look_up(self) -> MutableMapping[str, Any]:
        """Take what was preloaded, or look the session up now."""
        preloaded = self._take_preloaded() if self._is_preloaded or self._failure is not None else None
        return self.load() if preloaded is None else preloaded

    async def _alook_up(self) -> MutableMapping[str, Any]:
        """As _look_up."""
        preloaded = self._take_preloaded()
        return await self.aload() if preloaded is None else preloaded

    async def _aget_session(self, no_load: bool = False) -> MutableMapping[str, Any]:
        if self._content is None and self.session_key is not None and not no_load:
            self.accessed = True
            preloaded = self._take_preloaded()
            if preloaded is not None:
                self._content = preloaded
            elif self._stays_in_threads:
                await asyncio.to_thread(self._get_session)
            else:
                await self._look_first()
        return self._get_session(no_load)

    async def _look_first(self) -> None:
        """Look the session up; tasks of the view that do so at once all have what the first of them finds."""
        async with self._turn_of_tasks():
            if self._failure is not None:
                raise self._failure
            if self._content is None:
                found = await self.aload()
                if self._content is None:  # else another task has emptied it meanwhile
                    self._content = found

    _session = property(_get_session)

    # These three do without a call what `_get_session` does once there is a session: most requests use nothing else.

    def __getitem__(self, key: str) -> Any:
        content = self._content
        if content is None:
            content = self._get_session()
        self.accessed = True
        return content[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of key, or default if there is none."""
        content = self._content
        if content is None:
            content = self._get_session()
        self.accessed = True
        return content.get(key, default)

    def __setitem__(self, key: str, value: object) -> None:
        content = self._content
        if content is None:
            content = self._get_session()
        content[key] = value
        self.accessed = True
        self._modified = True

    def get_expiry_age(self, **kwargs: Any) -> int:
        """Return in how many seconds the session expires, from now or from kwargs' `modification`."""
        if not kwargs and not self.get(EXPIRY):
            return self.get_session_cookie_age()
        age: int = super().get_expiry_age(**kwargs)
        return age


def _is_known(session: Session | None) -> bool:
    """Whether there is a session for certain: what stands for one that cannot be reached tells nothing."""
    return session is not None and session.state.is_kept
