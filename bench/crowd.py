"""Many processes that do the same thing at the same time, each with a warm connection of its own.

Promise: no process starts before all are ready, and none shares a connection or an engine with another.
"""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import text

from db import engine
from db.session import transaction
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from multiprocessing.synchronize import Barrier

_READY_SECONDS = 60  # To fork and to connect is quick; 64 at once on a busy machine take seconds.

_Told = TypeVar("_Told")
_Done = TypeVar("_Done")

# They come from a fork server: a fresh interpreter that has imported Harbor and opened nothing. To spawn 64 of them
# takes half a minute of imports on two cores; a fork of this process would inherit its engine and half of its state.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["bench.__main__"])

_barrier: Barrier


@dataclass(frozen=True, slots=True)
class Crowd:
    """`size` processes that wait for work."""

    size: int
    _pool: ProcessPoolExecutor

    def do(self, work: Callable[[int, _Told], _Done], told: _Told) -> list[_Done]:
        """Run `work(number, told)` in every process at once, `number` from 0 on, and return what each returned."""
        running = [self._pool.submit(_together, work, number, told) for number in range(self.size)]
        return [each.result() for each in running]


@contextmanager
def crowd(size: int) -> Iterator[Crowd]:
    """Start `size` processes for the length of the block; they use the servers of this process's environment."""
    told = (_context.Barrier(size), dict(os.environ))
    with ProcessPoolExecutor(size, _context, initializer=_enter, initargs=told) as pool:
        yield Crowd(size, pool)


def _enter(barrier: Barrier, environ: Mapping[str, str]) -> None:
    global _barrier  # noqa: PLW0603 - a barrier can be handed to a process only when it starts
    _barrier = barrier
    # The fork server has the environment of its start, which may have been for another database.
    os.environ.update(environ)
    settings.cache_clear()
    engine.configure(application_name="harbor-bench", concurrency=1)


def _together(work: Callable[[int, _Told], _Done], number: int, told: _Told) -> _Done:
    with transaction() as session:
        session.execute(text("SELECT"))
    # Nobody gets a second piece of work before all have their first: who waits here cannot take another.
    _barrier.wait(_READY_SECONDS)
    return work(number, told)
