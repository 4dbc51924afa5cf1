"""msm-fast demo: a small shop whose sessions outlive a memcached server and a worker.

processes   the children, and the guardian that ends them when the demo is gone
shop        the WSGI application that the workers serve
load        the load balancer and the shoppers, who remember what was acknowledged
report      what was measured, as numbers and as a table
story       the order of events
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

__all__ = ["add_command", "run"]

REQUIRED = ("gunicorn", "rich")


def add_command(commands: Commands) -> None:
    """Add the subcommand and its options to a parser."""
    parser = commands.add_parser(
        "demo",
        help="show sessions outliving a memcached server and a worker",
        description="Start three memcached servers and two workers of a small shop on the loopback interface, kill "
        "one of each under load, and check every session. Exit status: 0 all sessions and requests are well, "
        "1 something was lost, failed or late, 2 the demo could not run.",
    )
    parser.add_argument("--once", action="store_true", help="end after the story; otherwise the shop stays up")
    parser.add_argument("--local", action="store_true", help="show the embedded local mode, without memcached")
    parser.add_argument("--sessions", type=_positive_int, default=300, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--seconds",
        type=_positive_float,
        default=3.0,
        metavar="S",
        help="of load per phase; default: %(default)s",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo and return its exit status."""
    missing = [name for name in REQUIRED if importlib.util.find_spec(name) is None]
    if missing:
        print(f"The demo needs {' and '.join(missing)}: pip install 'msm-fast[demo]'.", file=sys.stderr)
        return 2
    # Only now: these modules import what may have been missing.
    from msm_fast.cli.demo.story import Options, tell

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    options = Options(
        once=arguments.once, local=arguments.local, n_sessions=arguments.sessions, phase_s=arguments.seconds
    )
    try:
        return tell(options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # As an exception, so that every finally on the way out ends its children.
    raise SystemExit(128 + number)


def _positive_int(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


def _positive_float(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError(text)
    return value
