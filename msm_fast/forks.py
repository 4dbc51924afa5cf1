"""What is to be done when a process forks, for each thing for itself."""

from __future__ import annotations

from collections.abc import Callable

from msm_fast.logs import Log

__all__ = ["take_each"]

_log = Log("msm_fast.forks")


def take_each(*steps: Callable[[], object]) -> None:
    """Take all steps, whatever comes of each; what one raises is logged."""
    for step in steps:
        try:
            step()
        except Exception:  # noqa: BLE001 - whatever it was: the steps that follow keep a child off its parent's sockets
            _log.exception("a step that a fork takes has failed")
