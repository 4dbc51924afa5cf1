"""The package's own loggers: what a site does with the lines keeps nothing here from going on."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from contextvars import ContextVar

__all__ = ["Log"]

_line: ContextVar[list[str] | None] = ContextVar("msm_fast_line", default=None)
"""What this thread, greenlet or task is writing; emptied after that, for what was begun meanwhile has it, too."""
_CALLER = 3
"""The frame that a line is said to come from, counted from the one that calls `logging`."""


class Log:
    """Writes lines by the logger of that name, in the midst of requests and in threads that nobody would start again.

    So what a filter or a handler of the site raises, as one that wants a request where there is none, does not come
    here: it is printed as `logging` prints the errors of its own handlers. And while it looks at a line it may look at
    its request's session, too, which may be told of again: that is not logged, since it would have no end.
    """

    __slots__ = ("_logger",)

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def is_enabled_for(self, level: int) -> bool:
        """Whether anybody wants lines of this level."""
        return self._logger.isEnabledFor(level)

    def info(self, message: str, *args: object) -> None:
        """Log what needs nobody's attention."""
        self.write(logging.INFO, message, args)

    def warning(self, message: str, *args: object) -> None:
        """Log what somebody should look at."""
        self.write(logging.WARNING, message, args)

    def error(self, message: str, *args: object, exc_info: BaseException | None = None) -> None:
        """Log what has failed; exc_info: why."""
        self.write(logging.ERROR, message, args, exc_info=exc_info)

    def exception(self, message: str, *args: object) -> None:
        """Log what has failed, with the error that is being handled."""
        self.write(logging.ERROR, message, args, exc_info=sys.exc_info()[1])

    def write(
        self,
        level: int,
        message: str,
        args: tuple[object, ...],
        *,
        exc_info: BaseException | None = None,
        extra: dict[str, object] | None = None,
    ) -> None:
        """Log a line. extra: what its record has besides."""
        if _line.get():
            return
        line = [message]
        before = _line.set(line)
        try:
            self._logger.log(level, message, *args, exc_info=exc_info, extra=extra, stacklevel=_CALLER)
        except Exception:  # noqa: BLE001 - whatever it was, it is the site's
            if logging.raiseExceptions:
                with contextlib.suppress(Exception):
                    traceback.print_exc()
                    print("The line was:", message % args, file=sys.stderr)
        finally:
            line.clear()
            _line.reset(before)
