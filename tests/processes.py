"""Processes as an operator starts them: each logs to a file of its own, is watched with a deadline, and leaves nothing.

A process is started in a session of its own, so that it can be killed together with everything it started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).resolve().parents[1]

_POLL_SECONDS = 0.05
_TAIL_CHARACTERS = 4_000
_END_SECONDS = 20


@dataclass(frozen=True)
class Process:
    """A program that runs, and its log: what it wrote to stdout and stderr."""

    popen: subprocess.Popen[bytes]
    log: Path

    def text(self) -> str:
        """What it has logged so far."""
        return self.log.read_text("utf-8", errors="replace")

    def events(self, event: str) -> list[dict[str, Any]]:
        """The JSON lines of its log that carry this event."""
        lines = [line for line in self.text().splitlines() if line.startswith("{") and line.endswith("}")]
        return [told for told in map(json.loads, lines) if told.get("event") == event]

    def runs(self) -> bool:
        """Whether it has not ended."""
        return self.popen.poll() is None

    def terminate(self) -> int:
        """Ask it to end as an operator does, wait, and return its exit code."""
        self.popen.terminate()
        wait_until(lambda: not self.runs(), _END_SECONDS, self)
        return self.popen.wait()

    def kill_group(self) -> None:
        """End it and everything it started at once, as a machine that loses its power does."""
        with suppress(ProcessLookupError):
            os.killpg(self.popen.pid, signal.SIGKILL)
        self.popen.wait()


@contextmanager
def process(command: list[str], environ: Mapping[str, str], log: Path) -> Iterator[Process]:
    """Run a command from the root of the checkout for the length of the block; nothing of it is left afterwards."""
    with (
        log.open("wb") as written,
        subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        ) as popen,
    ):
        running = Process(popen, log)
        try:
            yield running
        finally:
            running.kill_group()


def program(name: str) -> str:
    """The path of a console script of this environment."""
    return str(Path(sysconfig.get_path("scripts")) / name)


def run(
    command: list[str], environ: Mapping[str, str], *, cwd: Path = ROOT, deadline_seconds: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it wrote."""
    return subprocess.run(
        command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=deadline_seconds, check=False
    )


def python(*arguments: str) -> list[str]:
    """The command that runs this interpreter."""
    return [sys.executable, *arguments]


def wait_until(condition: Callable[[], object], deadline_seconds: float, *watched: Process) -> None:
    """Wait until a condition holds; fails at the deadline with the end of the log of each watched process."""
    deadline = time.monotonic() + deadline_seconds
    pause = threading.Event()
    while not condition():
        if time.monotonic() > deadline:
            tails = [f"\n--- {process.popen.args!r}\n{process.text()[-_TAIL_CHARACTERS:]}" for process in watched]
            raise AssertionError(f"the condition did not hold within {deadline_seconds} s{''.join(tails)}")
        pause.wait(_POLL_SECONDS)
