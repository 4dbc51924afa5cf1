"""Two requests that meet: one is held up between its reading and its writing, for the other to come in between."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE_S = 20.0


class Meeting:
    """For one held-up request."""

    def __init__(self) -> None:
        self._has_read = threading.Event()
        self._may_go_on = threading.Event()

    def hold_up(self) -> None:
        """Called by the application in the middle of the slow request."""
        self._has_read.set()
        assert self._may_go_on.wait(PATIENCE_S)

    def while_held_up(self, slow: Callable[[], T], act: Callable[[], object]) -> T:
        """Do act while the request that slow makes is held up; return the answer to that."""
        answers: list[T] = []
        thread = threading.Thread(target=lambda: answers.append(slow()))
        thread.start()
        assert self._has_read.wait(PATIENCE_S)
        try:
            act()
        finally:
            self._may_go_on.set()
            thread.join(PATIENCE_S)
        return answers[0]
