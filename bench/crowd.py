"""Many processes that do the same thing at the same time, each with a warm connection of its own.

Promise: no process starts before all are ready, and none shares a connection, an engine or an interpreter with another.
"""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import text

from db import engine
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Barrier

_READY_SECONDS = 60  # To start an interpreter and import takes a second or two; eight at once on a busy machine, more.

_Told = TypeVar("_Told")
_Done = TypeVar("_Done")

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
    """Start `size` processes for the length of the block.

    They are spawned, never forked: a forked child would inherit this process's engine and half of its state.
    """
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(size, spawn, initializer=_enter, initargs=(spawn.Barrier(size),)) as pool:
        yield Crowd(size, pool)


def _enter(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - a barrier can be handed to a process only when it starts
    _barrier = barrier
    engine.configure(application_name="harbor-bench", concurrency=1)


def _together(work: Callable[[int, _Told], _Done], number: int, told: _Told) -> _Done:
    with transaction() as session:
        session.execute(text("SELECT"))
    # Nobody gets a second piece of work before all have their first: who waits here cannot take another.
    _barrier.wait(_READY_SECONDS)
    return work(number, told)
