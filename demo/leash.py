"""`python -m demo.leash PARENT PROGRAM ...` becomes PROGRAM, and ends when its parent does (on Linux).

Promise: a demo that is killed with SIGKILL leaves no worker behind. The kernel is asked here, in the new process, and
not between fork and exec, where a parent with threads may run no Python.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # From linux/prctl.h.


def main() -> None:
    """Ask for SIGTERM at the parent's death, then become the program."""
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        # It may have died before the kernel was asked.
        if os.getppid() != int(parent):
            sys.exit(1)
    os.execv(command[0], command)  # noqa: S606 - the caller's own list of arguments, as it gave it


if __name__ == "__main__":
    main()
