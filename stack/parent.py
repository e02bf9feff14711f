"""The process that a keeper serves.

Promise: its end is noticed, however it ends: it says so with SIGTERM, its pipe closes, or the keeper is orphaned.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

POLL_SECONDS = 0.02
READ_BYTES = 4096


class AbandonedError(Exception):
    """The parent is done with the stack, or is dead."""


class Parent:
    """The process that asked for the servers."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._dismissed = False
        self._heard = b""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._dismiss)

    def _dismiss(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - the signature of a handler
        self._dismissed = True

    def is_done(self, wait_seconds: float = 0) -> bool:
        """Whether the servers are no longer wanted; waits up to `wait_seconds` for that."""
        readable, _, _ = select.select([sys.stdin], [], [], wait_seconds)
        if readable:
            # Not by `sys.stdin`, whose buffer `select` does not see. A closed pipe reads as empty.
            said = os.read(sys.stdin.fileno(), READ_BYTES)
            self._heard += said
            self._dismissed |= not said
        return self._dismissed or os.getppid() != self._pid

    def wish(self) -> dict[str, Any] | None:
        """What the parent has asked for since the first request, oldest first: one line of JSON, or None."""
        line, end, rest = self._heard.partition(b"\n")
        if not end:
            return None
        self._heard = rest
        asked: dict[str, Any] = json.loads(line)
        return asked

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
