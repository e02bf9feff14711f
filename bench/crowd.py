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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Barrier

_READY_SECONDS = 60  # Starting an interpreter and importing takes a second or two; on a busy machine some more.

_T = TypeVar("_T")
_A = TypeVar("_A")

_barrier: Barrier


@dataclass(frozen=True, slots=True)
class Crowd:
    """`size` processes that wait for work."""

    size: int
    _pool: ProcessPoolExecutor

    def all(self, work: Callable[[int, _A], _T], told: _A) -> list[_T]:
        """Run `work(number, told)` in every process at once, `number` being 0 to size - 1; return what each returned."""
        return [
            running.result()
            for running in [self._pool.submit(_together, work, number, told) for number in range(self.size)]
        ]


@contextmanager
def crowd(size: int) -> Iterator[Crowd]:
    """Start `size` processes for the length of the block.

    They are spawned, never forked: a forked child would inherit this process's engine and half of its state.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        size, mp_context=context, initializer=_enter, initargs=(context.Barrier(size), size)
    ) as pool:
        yield Crowd(size, pool)


def _enter(barrier: Barrier, size: int) -> None:
    global _barrier  # noqa: PLW0603 - a barrier can be handed to a process only when it starts
    _barrier = barrier
    engine.configure(application_name=f"harbor-bench-{size}", concurrency=1)


def _together(work: Callable[[int, _A], _T], number: int, told: _A) -> _T:
    with engine.engine().connect() as connection:
        connection.execute(text("SELECT 1"))
    # Nobody gets a second piece of work before all have the first: who waits here cannot take another.
    _barrier.wait(_READY_SECONDS)
    return work(number, told)
