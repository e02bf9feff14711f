"""Processes of a side: real ones, started by their own command line, with a log each, gone when the block ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from bench.measure import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_ROOT: Final = Path(__file__).resolve().parents[2]
_TAIL_CHARACTERS: Final = 1_500


@dataclass(frozen=True, slots=True)
class Process:
    """A process that runs; its own children belong to it."""

    name: str
    log: Path
    _popen: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        """Return the id of the process that was started; those of its children are the system's to tell."""
        return self._popen.pid

    def has_said(self, words: str) -> bool:
        """Return whether `words` stand in its log."""
        return words in self._read()

    def check(self, *, in_time: bool) -> None:
        """Check that it runs and is in time.

        Raises:
            CheckFailedError: it ended, or was not in time; with the end of its log.
        """
        ended = self._popen.poll() is not None
        if ended or not in_time:
            problem = "ended by itself" if ended else "did not do its work in time"
            raise CheckFailedError(f"{self.name} {problem}; its log ends:\n{self._read()[-_TAIL_CHARACTERS:]}")

    def _read(self) -> str:
        return self.log.read_text("utf-8", errors="replace")


@contextmanager
def running(
    name: str, module: str, options: Sequence[str], environ: Mapping[str, str], logs: Path, *, count: int = 1
) -> Iterator[list[Process]]:
    """Run `count` times `python -m module options…` for the length of the block.

    Args:
        name: what the processes are called in an error, and their logs.
        module: the program.
        options: its command line.
        environ: what is added to this process's environment.
        logs: a directory; each process writes a file there.
        count: how many processes.
    """
    with ExitStack() as stack:
        yield [
            stack.enter_context(_one(f"{name}-{one}", module, options, environ, logs)) for one in range(1, count + 1)
        ]


@contextmanager
def _one(name: str, module: str, options: Sequence[str], environ: Mapping[str, str], logs: Path) -> Iterator[Process]:
    log = logs / f"{name}.log"
    with log.open("ab") as written:
        popen = subprocess.Popen(
            [sys.executable, "-m", "bench.worker.child", str(os.getpid()), module, *options],
            cwd=_ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
        try:
            yield Process(name, log, popen)
        finally:
            # It has nothing to lose, and asked politely it takes its time.
            with suppress(ProcessLookupError):
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()
