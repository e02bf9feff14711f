"""Programs that are kept running: one log for all, started again when they end, and stopped together.

Promise: when this process stops, it stops them first; when it is killed, cli/child.py says what happens to them.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from types import FrameType
from typing import IO

Say = Callable[[str, str], None]
"""Takes the name of a program and a line of its log."""

_PATIENCE_SECONDS = 30  # How long a program may take to stop before it is killed.
_LONGEST_PAUSE_SECONDS = 30
_STEADY_SECONDS = 60  # Who ran so long starts again after a second, however often it ended before.
_TURN_SECONDS = 0.1
_LAST_LINES_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Program:
    """A command of `harbor`, what is added to its environment, and the signal on which it stops soon."""

    name: str
    arguments: Sequence[str]
    stop_signal: signal.Signals
    environ: Mapping[str, str] = field(default_factory=dict)


class Child:
    """One program, kept running; `log` takes its name and each of its lines."""

    def __init__(self, program: Program, log: SimpleQueue[tuple[str, str]]) -> None:
        self._program = program
        self._log = log
        self._process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None
        self._pause_seconds = 1
        self._started = self._due = time.monotonic()

    def tend(self) -> None:
        """Say so when it has ended, and start it when it is time to."""
        now = time.monotonic()
        if self._process is not None and self._process.poll() is not None:
            if now - self._started >= _STEADY_SECONDS:
                self._pause_seconds = 1
            pause = f"{_ending(self._process)}; it starts again in {self._pause_seconds} s"
            self._log.put((self._program.name, pause))
            self._due = now + self._pause_seconds
            self._pause_seconds = min(2 * self._pause_seconds, _LONGEST_PAUSE_SECONDS)
            self._process = None
        if self._process is None and now >= self._due:
            self._start()

    def ask_to_stop(self) -> None:
        """Send it its stop signal."""
        if self._process is not None:
            self._process.send_signal(self._program.stop_signal)

    def has_stopped(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    def end(self) -> None:
        """Kill it if it runs, with all that it started, and wait until its last line is in the log."""
        if self._process is None or self._reader is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join(_LAST_LINES_SECONDS)

    def _start(self) -> None:
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli.child", str(os.getpid()), *self._program.arguments],
            env={**os.environ, **self._program.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # A terminal sends Ctrl-C to everybody in its session; a child gets its stop signal from here, once.
            start_new_session=True,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._forward, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _forward(self, lines: IO[str]) -> None:
        with lines:
            for line in filter(str.strip, lines):
                self._log.put((self._program.name, line.rstrip()))


def keep(programs: Iterable[Program], say: Say, check: Callable[[], None]) -> None:
    """Run programs until this process is asked to stop by a signal, then stop them; asked again, kill them.

    Args:
        programs: all start at once.
        say: takes what they log.
        check: is called every turn; what it raises kills the programs and is raised here.
    """
    log: SimpleQueue[tuple[str, str]] = SimpleQueue()
    children = [Child(program, log) for program in programs]
    with _requests() as requests:
        try:
            while not requests:
                check()
                for child in children:
                    child.tend()
                _pass_on(log, say)
            for child in children:
                child.ask_to_stop()
            patience_ends = time.monotonic() + _PATIENCE_SECONDS
            while not all(child.has_stopped() for child in children):
                if len(requests) > 1 or time.monotonic() > patience_ends:
                    break
                _pass_on(log, say)
        finally:
            for child in children:
                child.end()
        while not log.empty():
            _pass_on(log, say)


def heeded() -> list[signal.Signals]:
    """The signals that ask to stop, without those that whoever started this process had it ignore, such as `nohup`."""
    asking = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    return [number for number in asking if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def _requests() -> Iterator[list[int]]:
    """The signals to stop that arrive during the block, in order."""
    arrived: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        arrived.append(number)

    before = {number: signal.signal(number, note) for number in heeded()}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _pass_on(log: SimpleQueue[tuple[str, str]], say: Say) -> None:
    """Say what is logged within one turn, and no longer: a flood of lines must not keep a stop waiting."""
    turn_ends = time.monotonic() + _TURN_SECONDS
    with suppress(Empty):
        while (left_seconds := turn_ends - time.monotonic()) > 0:
            say(*log.get(timeout=left_seconds))


def _ending(process: subprocess.Popen[str]) -> str:
    code = process.returncode
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
