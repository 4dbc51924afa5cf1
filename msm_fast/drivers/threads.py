"""Where an event loop has done what may block: the local store in a file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 4


class Threads:
    """A few threads of a manager's own, made when they are needed: the loop's may be busy with the application's work.

    Thread-safety: of one event loop.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what function returns. Broken off, it still waits: what is being worked on must not be touched."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix="msm-fast-local-store")
        future = asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # nobody else will ask
            raise

    def close(self) -> None:
        """Let the threads end when they are idle."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def start_anew(self) -> None:
        """Forget the threads, which did not come along into a forked child."""
        self._pool = None
