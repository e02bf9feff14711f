"""What a side of the race from enqueue to effect has to be able to do.

A side is up all the time: its workers are idle while the others have their turn.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bench.jobs.process import Process


class Promise(StrEnum):
    """What a side promises of a job's effect when a worker dies; it is held to it in a run in which none does."""

    EXACTLY_ONCE = "exactly once"
    AT_LEAST_ONCE = "at least once"


class Side(Protocol):
    """A job system with its workers running.

    Attributes:
        name: what the side is called.
        promise: what it says of a job's effect.
        processes: what it has running, to look whether they still do.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def promise(self) -> Promise: ...  # noqa: D102
    @property
    def processes(self) -> Sequence[Process]: ...  # noqa: D102

    def ready(self) -> bool:
        """Return whether all of its workers wait for jobs."""

    def enqueue(self, ids: Sequence[int]) -> None:
        """Enqueue a job for each row of `effects`, the way this system does it fastest; durable when it returns."""

    def drained(self) -> bool:
        """Return whether it has nothing to do any more: no job waits, runs, or is yet to be marked as done."""


class Starts(Protocol):
    """Make a side's tables, start its workers for the length of the block, and yield it.

    `workers` is the number of processes that run jobs, the same for all sides; `logs` is a directory for their logs.
    """

    def __call__(self, *, workers: int, logs: Path) -> AbstractContextManager[Side]: ...  # noqa: D102
