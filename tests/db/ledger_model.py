"""What a dictionary says of a job: where it must stand, and who is refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from db.errors import JobCancelled, JobLeaseLost

if TYPE_CHECKING:
    from uuid import UUID

LIVE: Final = ("ready", "published", "running")
FLYING: Final = ("published", "running")


@dataclass
class Expected:
    """A job as it must stand."""

    place: int
    key: str | None
    max_attempts: int
    state: str = "ready"
    attempt: int = 0
    due: bool = True
    over: bool = False  # Its lease has run out.
    stop: bool = False
    effects: int = 0
    token: UUID | None = None

    def end_if_it_must(self, *, counted: bool = True) -> bool:
        """End instead of being run, or tried, again; whether it did."""
        if self.stop:
            self.state = "cancelled"
        elif counted and self.attempt >= self.max_attempts:
            self.state = "dead"
        return self.state not in LIVE

    def leave(self, state: str, due: bool = False) -> None:
        """Stop running."""
        self.state, self.due, self.token, self.over = state, due, None, False


def refusal(job: Expected, *, mine: bool) -> type[Exception] | None:
    """Why a worker must not go on."""
    if not mine:
        return JobLeaseLost
    return JobCancelled if job.stop else None
