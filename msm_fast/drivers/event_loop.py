"""The event loop that a manager lives in."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any

from msm_fast.errors import WrongEventLoop

__all__ = ["LoopHome", "start_task"]


def start_task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start what is no request's in a context of its own: it outlives the request that happens to need it first.

    What that has in its context variables would live as long as a connection that it had made, and what is logged of a
    node hours later would be told with that request's id.
    """
    loop = asyncio.get_running_loop()
    return contextvars.Context().run(lambda: loop.create_task(work, name=name))


class LoopHome:
    """The loop of the first request, until it is closed or left behind by a fork; then that of the next.

    on_move: called in a loop that is entered for the first time; what belonged to the one before is void.
    """

    def __init__(self, on_move: Callable[[], None]) -> None:
        self._on_move = on_move
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        """Return the running loop.

        Raises: WrongEventLoop if it is another than that of a request before, or none of asyncio's.
        """
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise WrongEventLoop(
                "no event loop runs here that sessions can use: msm_fast needs asyncio or uvloop, not trio"
            ) from None
        if loop is not self._loop:
            self._move(loop)
        return loop

    def call(self, callback: Callable[[], None]) -> None:
        """Call back in the loop, from any thread: at once in its own. Without a loop, nothing is done."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        if asyncio._get_running_loop() is loop:
            callback()
        else:
            with contextlib.suppress(RuntimeError):  # it was closed this moment
                loop.call_soon_threadsafe(callback)

    def leave(self) -> None:
        """Forget the loop: this is a forked child, in which it does not run."""
        self._loop = None

    def _move(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            raise WrongEventLoop(
                "this manager serves another event loop, which is not closed yet; make one manager for each loop, or "
                "one application whose middleware makes it"
            )
        self._loop = loop
        self._on_move()
