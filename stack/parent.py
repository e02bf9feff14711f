"""The process that a keeper serves.

Promise: its end is noticed, however it ends: it says so with SIGTERM, its pipe closes, or the keeper is orphaned.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

POLL_SECONDS = 0.02


class AbandonedError(Exception):
    """The parent is done with the stack, or is dead."""


class Parent:
    """The process that asked for the servers."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._dismissed = False
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._dismiss)

    def _dismiss(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self._dismissed = True

    def is_done(self, wait_seconds: float = 0) -> bool:
        """Whether the servers are no longer wanted; waits up to `wait_seconds` for that."""
        # Nothing follows the request, so a readable pipe is a closed one.
        closed, _, _ = select.select([sys.stdin], [], [], wait_seconds)
        return bool(closed) or self._dismissed or os.getppid() != self._pid

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition; whether it came true in time.

        Raises:
            AbandonedError: the parent is done.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self.is_done():
                raise AbandonedError
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True
