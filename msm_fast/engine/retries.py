"""A limit on retries as a share of all requests, so that a failing cluster is not loaded further by them."""

from __future__ import annotations

import threading

__all__ = ["RetryBudget"]

_MOST_SAVED = 10.0


class RetryBudget:
    """A token bucket: each request earns a share of a retry, each retry costs one; some may be saved up.

    share: retries earned per request, 0 to 1. Thread-safety: under a lock.
    Source: the retry quota of the AWS SDKs.
    """

    __slots__ = ("_lock", "_share", "_tokens", "is_full")

    def __init__(self, share: float) -> None:
        self._share = share
        self._tokens = _MOST_SAVED if share else 0.0
        self.is_full = self._tokens >= _MOST_SAVED
        """Whether nothing more can be saved up: then requests need not be noted."""
        self._lock = threading.Lock()

    def earn(self) -> None:
        """Note a request."""
        with self._lock:
            self._tokens = min(self._tokens + self._share, _MOST_SAVED)
            self.is_full = self._tokens >= _MOST_SAVED

    def spend(self, n: int) -> bool:
        """Take the tokens for n retries; return whether they were there."""
        with self._lock:
            if self._tokens < n:
                return False
            self._tokens -= n
            self.is_full = False
            return True

    def renew_lock(self) -> None:
        """Replace the lock in a forked child, where another thread may have held it."""
        self._lock = threading.Lock()
