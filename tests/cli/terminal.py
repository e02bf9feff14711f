"""A command on a terminal of its own, as an operator has it: what it writes, and keys for it."""

from __future__ import annotations

import os
import pty
import select
import signal
import time

from tests.processes import ROOT, python

_DEADLINE_SECONDS = 30


class Terminal:
    """A command on a terminal of its own: what it writes, and keys for it."""

    def __init__(self, *arguments: str) -> None:
        command = python("-m", "cli", *arguments)
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            # Whoever runs the tests in the background has them ignore it, and what they start, too.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.chdir(ROOT)
            os.execvp(command[0], command)
        self.text = ""

    def until(self, wanted: str) -> None:
        """Read until it has written this; fails at a deadline."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while wanted not in self.text:
            assert select.select([self._fd], [], [], max(0, deadline - time.monotonic()))[0], self.text
            self.text += os.read(self._fd, 65_536).decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def end(self) -> int:
        """Read to its end and return its exit code; it is killed at a deadline."""
        deadline = time.monotonic() + _DEADLINE_SECONDS
        try:
            while True:
                if not select.select([self._fd], [], [], max(0, deadline - time.monotonic()))[0]:
                    os.kill(self.pid, signal.SIGKILL)
                if not (read := os.read(self._fd, 65_536)):
                    break
                self.text += read.decode(errors="replace")
        except OSError:  # Linux says so when the last process has closed its side.
            pass
        os.close(self._fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
