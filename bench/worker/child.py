"""`python -m bench.worker.child PARENT MODULE OPTIONS…`: a program that does not outlive the process PARENT, on Linux.

It becomes `python -m MODULE OPTIONS…` itself, so that nothing of this file is in what is measured.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # From linux/prctl.h. It stays set when the process becomes another program.

if __name__ == "__main__":
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before it could be watched.
    if os.getppid() != parent:
        sys.exit(f"bench: process {parent}, which started this one, is gone")
    os.execv(sys.executable, [sys.executable, "-m", *sys.argv[2:]])  # noqa: S606 - a list, and no shell
