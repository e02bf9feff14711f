"""A program of the house that runs for the demo: started, killed and started again as the demo says.

Promise: it runs in a session of its own, so that a Ctrl-C in the terminal reaches the demo alone, which then stops it;
neither it nor a child of it is left behind, whatever ends the demo (cli/child.py sees to a SIGKILL, on Linux).
`cli.children` keeps programs alive; here one has to die and come back when the demo says so.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from demo.errors import DemoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT: Final = Path(__file__).resolve().parent.parent
LOG_TAIL_CHARACTERS: Final = 1_500
# The demo is short, so that it shall not take half a minute to see that somebody is gone.
LEASE_SECONDS: Final = 5
REPUBLISH_SECONDS: Final = 5


class Process:
    """One command of `harbor`. Start it from the main thread: the kernel ends it with the thread that started it."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        log: Path,
        *,
        stop_signal: signal.Signals = signal.SIGTERM,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._arguments = arguments
        self._stop_signal = stop_signal
        leases = {
            "HARBOR_JOB_LEASE_SECONDS": str(LEASE_SECONDS),
            "HARBOR_JOB_REPUBLISH_SECONDS": str(REPUBLISH_SECONDS),
        }
        self._environ = {**os.environ, **leases, **(environ or {})}
        self._log = log
        self._popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the program, or start it again after its end."""
        with self._log.open("ab") as log:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "cli.child", str(os.getpid()), *self._arguments],
                cwd=ROOT,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def crashed(self) -> bool:
        """Return whether the program has ended and nobody here asked for it."""
        return self._popen is not None and self._popen.poll() is not None

    def ask_to_stop(self) -> None:
        """Ask the program to end; `end` sees to it."""
        if self._popen is not None:
            self._popen.send_signal(self._stop_signal)

    def end(self, patience_seconds: float = 0) -> None:
        """Wait so long for the program to end, then kill it and whatever it started, with SIGKILL."""
        if self._popen is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(patience_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()
        self._popen = None

    def failed(self, problem: str) -> DemoError:
        """Return the error that says what is wrong with this program, with the end of its log."""
        tail = self._log.read_text(errors="replace")[-LOG_TAIL_CHARACTERS:].strip()
        return DemoError(f"{self.name} {problem}; its log ends:\n{tail}")
