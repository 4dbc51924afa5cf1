"""The end of this process, for whoever watches over it to start a new one: on_stop="end_process"."""

from __future__ import annotations

import os
import signal
import time
from threading import Timer

from msm_fast.logs import Log

__all__ = ["end_process"]

_log = Log("msm_fast.process_end")

LEAST_AGE_S = 10.0
"""No process ends itself before it is this old. Where every request brings what cannot be stored, each new worker would
be stopped by its first one: that must not become a storm of restarts."""

_began = time.monotonic()


def end_process() -> None:
    """End this process as its server is ended: by SIGTERM, at once or when it is LEAST_AGE_S old. Waits for nothing."""
    wait_s = max(0.0, _began + LEAST_AGE_S - time.monotonic())
    _log.warning("process %d ends itself in %.1f seconds (settings.on_stop)", os.getpid(), wait_s)
    # By a thread: the request that met the value shall still get its answer from a server that handles no signals.
    timer = Timer(wait_s, os.kill, (os.getpid(), signal.SIGTERM))
    timer.daemon = True
    timer.start()


def _begin_anew() -> None:
    global _began
    _began = time.monotonic()


os.register_at_fork(after_in_child=_begin_anew)
