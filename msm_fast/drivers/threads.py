"""Where an event loop has done what may block: files, of the local store and of the black list."""

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

    Thread-safety: of one event loop; `start` may be called by what `call` calls, too.
    """

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what function returns. Broken off, it still waits: what is being worked on must not be touched."""
        future = asyncio.get_running_loop().run_in_executor(self._executor(), partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            while not future.done():
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.wait([future])
            if not future.cancelled():
                future.exception()  # nobody else will ask
            raise

    def start(self, function: Callable[[], object]) -> None:
        """Have function called, and do not wait. What it raises is lost. Raises: RuntimeError at the very end."""
        self._executor().submit(function)

    def close(self) -> None:
        """Let the threads end when they are idle."""
        if self._pool is not None:
            self._pool.shutdown(wait=False)
            self._pool = None

    def start_anew(self) -> None:
        """Forget the threads, which did not come along into a forked child."""
        self._pool = None

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_MOST, thread_name_prefix="msm-fast-files")
        return self._pool
