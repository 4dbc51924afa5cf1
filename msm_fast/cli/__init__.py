"""The msm-fast command: one subcommand per task."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from msm_fast.cli import demo

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the msm-fast command and return its exit status.

    argv: the arguments after the command's name; None: those of the process.
    Raises:  SystemExit, with status 2, for arguments that are not understood (argparse).
    """
    parser = argparse.ArgumentParser(prog="msm-fast", description="HTTP sessions in memcached, highly available.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    demo.add_command(commands)
    arguments = parser.parse_args(argv)
    status: int = arguments.run(arguments)
    return status
