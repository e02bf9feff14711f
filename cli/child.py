"""`python -m cli.child PARENT COMMAND…`: `harbor COMMAND…` that does not outlive the process PARENT.

On Linux the kernel kills it when its parent dies, however that dies, and Celery's own children when it dies. Elsewhere,
what a killed parent leaves has to be stopped by hand.
"""

import ctypes
import os
import signal
import sys

from cli import main

_PR_SET_PDEATHSIG = 1  # From linux/prctl.h. It stays set when the process becomes another program.

if __name__ == "__main__":
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died before it could be watched.
    if os.getppid() != parent:
        sys.exit(f"harbor: process {parent}, which started this one, is gone")
    main(sys.argv[2:])
