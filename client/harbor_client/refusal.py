"""What is wrong with a job: said before it is sent, or by the database, in the same words."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

REFUSED: Final = "22X10"
"""The SQLSTATE with which Harbor's functions refuse a job."""


class InvalidJob(ValueError):
    """A job that is not written.

    Attributes:
        task: the task's name, or `?`.
        field: the argument or option at fault; of a batch with its place before it, such as `jobs[3].reservation_id`.
        problem: what is wrong with it, without its value.
    """

    def __init__(self, task: str, field: str, problem: str) -> None:
        self.task = task
        self.field = field
        self.problem = problem
        super().__init__(task, field, problem)

    def __str__(self) -> str:
        return f"Job {self.task}: {self.field} {self.problem}."

    @classmethod
    def of(cls, error: BaseException) -> InvalidJob | None:
        """Return the refusal that an error of a driver, or SQLAlchemy's around it, stands for; None when it is none."""
        for each in _layers(error):
            if (getattr(each, "sqlstate", None) or getattr(each, "pgcode", None)) == REFUSED:
                told = getattr(each, "diag", None) or each
                # psycopg says message_detail, asyncpg says detail; SQLAlchemy's wrapper of asyncpg has neither column
                # nor table, but the error that it wraps has.
                detail = getattr(told, "message_detail", None) or getattr(told, "detail", None)
                field = getattr(told, "column_name", None)
                if field and detail:
                    message = getattr(told, "message_primary", None) or getattr(told, "message", None) or ""
                    return cls(getattr(told, "table_name", None) or "?", f"{_place(message)}{field}", detail)
        return None


@contextmanager
def refusals() -> Iterator[None]:
    """Turn the database's refusal into InvalidJob, also around an `await`; every other error passes.

    >>> with harbor_client.refusals():  # doctest: +SKIP
    ...     session.execute(harbor_client.enqueue("reservations.release", 42))

    The transaction can only be rolled back then, at least to a savepoint: that is PostgreSQL's rule for any error.
    """
    try:
        yield
    except Exception as error:
        refusal = InvalidJob.of(error)
        if refusal is None:
            raise
        raise refusal from None


def _layers(error: BaseException) -> Iterator[Any]:
    """Yield an error and what it wraps, outermost first."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        each = waiting.pop(0)
        if isinstance(each, BaseException) and id(each) not in seen:
            seen.add(id(each))
            yield each
            waiting += [getattr(each, "orig", None), each.__cause__, getattr(each, "driver_exception", None)]


def _place(message: str) -> str:
    """Return which job of a batch a message is about, as in `jobs[3]: job reservations.release: …`."""
    place, found, _ = message.partition(": job ")
    return f"{place}." if found and place.startswith("jobs[") else ""
