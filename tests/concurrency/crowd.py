"""Real processes that work on one database at the same time, each with an interpreter and connections of its own.

They come from a fork server: a fresh interpreter that has imported Harbor and opened nothing. Spawning 32 of them one
by one would take half a minute of imports on a small machine; none of them is a fork of the process that runs pytest.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import traceback
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sqlalchemy import text

from db import engine
from db.settings import PREFIX, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess
    from multiprocessing.synchronize import Barrier, Event

_READY_SECONDS = 60

_context = multiprocessing.get_context("forkserver")
# pytest is here because a child imports its parent's main module.
_context.set_forkserver_preload(["pytest", "psycopg", "tests.concurrency.crowd", "tests.factories"])

_T = TypeVar("_T")


@dataclass(frozen=True)
class Member:
    """What one process of a crowd knows: its number from 0, where all meet, and when to stop."""

    number: int
    barrier: Barrier
    stop: Event
    _report: Connection

    def meet(self) -> None:
        """Wait until every process of the crowd is here."""
        self.barrier.wait(_READY_SECONDS)

    def report(self, told: object) -> None:
        """Tell the test something before the work is over."""
        self._report.send(("told", told))

    def stand_still(self) -> None:
        """Do nothing more; the test kills this process."""
        # Not `stop`: setting it would wait for ever for a waiter that was killed.
        threading.Event().wait(_READY_SECONDS)


class Running(Generic[_T]):
    """A process at work."""

    def __init__(self, process: ForkServerProcess, reports: Connection) -> None:
        self._process = process
        self._reports = reports

    def told(self, deadline_seconds: float) -> Any:
        """Return what it reports next. Raises AssertionError when it fails or says nothing in time."""
        assert self._reports.poll(deadline_seconds), f"{self._process.name} said nothing within {deadline_seconds} s"
        kind, told = self._reports.recv()
        assert kind != "failed", f"{self._process.name} failed:\n{told}"
        return told

    def result(self, deadline_seconds: float) -> _T:
        """Return what its work returned."""
        result: _T = self.told(deadline_seconds)
        return result

    def kill(self) -> None:
        """End it with SIGKILL: it gets no chance to roll back, commit or say goodbye."""
        self._process.kill()
        self._process.join()

    def close(self) -> None:
        """End what is left of it."""
        self.kill()
        self._process.close()
        self._reports.close()


class Crowd:
    """`size` processes, started one by one; `stop` tells those that work until they are told."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.stop = _context.Event()
        self._barrier = _context.Barrier(size)
        self._started: list[Running[Any]] = []

    def start(self, work: Callable[..., _T], *told: object, threads: int = 1) -> Running[_T]:
        """Start a process that runs `work(member, *told)`.

        Args:
            work: a function of a module, since another interpreter has to find it.
            told: what it needs; copied.
            threads: how many threads of the process use the database at once.
        """
        reports, report = _context.Pipe(duplex=False)
        number = len(self._started)
        member = (number, self._barrier, self.stop, report)
        environ = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
        process = _context.Process(
            target=_enter, args=(member, environ, threads, work, told), name=f"{work.__name__}-{number}", daemon=True
        )
        process.start()
        report.close()
        running: Running[_T] = Running(process, reports)
        self._started.append(running)
        return running

    def all(self, work: Callable[..., _T], *told: object, deadline_seconds: float) -> list[_T]:
        """Run the same work in every process and return what each returned."""
        started = [self.start(work, *told) for _ in range(self.size)]
        return [running.result(deadline_seconds) for running in started]

    def close(self) -> None:
        """End every process, at work or not."""
        for running in self._started:
            running.close()


@contextmanager
def crowd(size: int) -> Iterator[Crowd]:
    """Have `size` processes for the length of the block."""
    crowd = Crowd(size)
    try:
        yield crowd
    finally:
        crowd.close()


def _enter(
    member: tuple[int, Barrier, Event, Connection],
    environ: Mapping[str, str],
    threads: int,
    work: Callable[..., object],
    told: tuple[object, ...],
) -> None:
    # The fork server has the environment of its start, not that of this test.
    os.environ.update(environ)
    settings.cache_clear()
    me = Member(*member)
    engine.configure(application_name=f"crowd-{me.number}", concurrency=threads)
    try:
        with engine.engine().connect() as connection:
            connection.execute(text("SELECT 1"))
        me.report(work(me, *told))
    except BaseException:
        member[3].send(("failed", traceback.format_exc()))
        raise
    finally:
        engine.dispose()
