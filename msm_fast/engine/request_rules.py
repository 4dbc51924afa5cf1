"""What becomes of a request by its method and path: whether it locks its session, whether what it changes counts."""

from __future__ import annotations

import re
from collections.abc import Callable

from msm_fast._core.near_cache import NearCache
from msm_fast.settings import Settings

__all__ = ["ReadOnlyRequests", "RequestRules"]

_MOST_READ_ONLY = 1000
_MOST_WRITING = 50_000
_REMEMBERED_S = 6 * 3600.0


class RequestRules:
    """settings.locking and settings.ignore_requests, with what was learned of the requests before.

    A request is named by "METHOD path", without a query: that would make each one a stranger. For patterns see README.
    Thread-safety: shared by all threads.
    """

    def __init__(self, settings: Settings, clock: Callable[[], float]) -> None:
        mode, _, pattern = settings.locking.partition(":")
        self._mode = "merge" if settings.sticky else mode  # sticky requests share the live session
        self.learns = self._mode == "auto"
        """Whether it is to be told of each request what that did to its session."""
        self.locks = self._mode in ("all", "auto", "uri")
        """Whether any request may need a lock."""
        self.ignores = settings.ignore_requests is not None
        """Whether any request may be ignored."""
        self._locked = re.compile(pattern, re.DOTALL)  # or a client's %0A would take a request out of it
        self._ignored = re.compile(settings.ignore_requests or "")
        self._read_only = ReadOnlyRequests(clock)
        self.is_ignored_change_told = False
        """Whether it was told that an ignored request had changed its session."""

    def is_ignored(self, path: str) -> bool:
        """Whether nothing that the request does to its session is stored."""
        return self.ignores and self._ignored.fullmatch(path) is not None

    def needs_lock(self, method: str, path: str) -> bool:
        """Whether the request has its session for itself."""
        if self._mode == "auto":
            return f"{method} {path}" not in self._read_only
        if self._mode == "uri":
            texts = (path, f"{method} {path}")
            return any(self._locked.fullmatch(text) for text in texts)
        return self._mode == "all"

    def learn(self, method: str, path: str, *, has_changed: bool) -> None:
        """Note whether a request has changed the session that it was given."""
        self._read_only.learn(f"{method} {path}", has_changed=has_changed)


class ReadOnlyRequests:
    """Requests that were seen to leave their session as it was, and never seen to change one.

    One that changed a session counts as writing for as long as that is remembered: six hours, and 50,000 requests. What
    is kept of a name is its hash, so that long paths take no room; two names of one hash are as good as impossible.
    Thread-safety: that of NearCache; between two changes of one request's the later one stays, and a request that is
    wrongly taken for read-only merges what it changes.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._known: NearCache = NearCache(_MOST_READ_ONLY, ttl=_REMEMBERED_S, clock=clock)
        self._writing: NearCache = NearCache(_MOST_WRITING, ttl=_REMEMBERED_S, clock=clock)

    def __contains__(self, name: str) -> bool:
        return self._known.get(hash(name)) is not None  # get, not in: what is asked for stays longest

    def learn(self, name: str, *, has_changed: bool) -> None:
        """Note what a request did."""
        if has_changed:
            self._writing.put(hash(name), True)
            self._known.pop(hash(name))
        elif name not in self and not self._writing.get(hash(name), False):
            self._known.put(hash(name), True)
