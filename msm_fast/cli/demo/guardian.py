"""End the demo's children when the demo ends, however it ends.

A process of its own, run by path. It reads lines from a pipe whose other end only the demo holds: ``+123`` puts the
process group 123 under guard, ``-123`` releases it. End of file means that the demo is gone, by SIGKILL or otherwise:
what is still under guard is killed, and the demo's directory, the only argument, is removed.
"""

import contextlib
import os
import shutil
import signal
import sys


def main() -> None:
    """Keep guard until end of file, then clear up."""
    groups: set[int] = set()
    for line in sys.stdin:
        change = groups.add if line.startswith("+") else groups.discard
        change(int(line[1:]))
    for group in groups:
        # macOS answers EPERM for a group that has only zombies left.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(sys.argv[1], ignore_errors=True)


if __name__ == "__main__":
    main()
