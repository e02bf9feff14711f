"""Which jobs are meant: the options that `harbor jobs list`, `retry`, `cancel` and `bury` share."""

import re
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from db.errors import HarborError, InvalidInput, QueueNotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

    from db.jobs import JobFilter

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_500)


class TaskUnknown(HarborError):
    """Task {task} is unknown; there are {tasks}. `harbor db upgrade` makes new ones known."""


def _age(told: str) -> timedelta:
    found = _AGE.fullmatch(told.strip())
    try:
        age = timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None
    except OverflowError:
        age = _LONGEST + timedelta(1)
    if age is None or age > _LONGEST:
        raise typer.BadParameter(f"must be like 90s, 10m, 2h or 3d, at most 36500d, and was {told!r}.")
    return age


def seconds(told: str) -> float:
    """Return how many seconds an option says, alone or with a unit, as an age has it."""
    try:
        return float(told)
    except ValueError:
        pass
    try:
        return _age(told).total_seconds()
    except typer.BadParameter:
        raise typer.BadParameter(f"must be seconds, or like 90s, 10m, 2h or 3d, and was {told!r}.") from None


Task = Annotated[str | None, typer.Option(help="Only jobs of this task.")]
Queue = Annotated[str | None, typer.Option(help="Only jobs of this queue.")]
OlderThan = Annotated[
    timedelta | None, typer.Option(parser=_age, metavar="AGE", help="Only jobs enqueued longer ago: 90s, 10m, 2h, 3d.")
]
NewerThan = Annotated[
    timedelta | None, typer.Option(parser=_age, metavar="AGE", help="Only jobs enqueued since: 90s, 10m, 2h, 3d.")
]


@contextmanager
def options(**typed: str) -> "Iterator[None]":
    """Name the option as it is typed when what it was given is out of range. Exits with 2 then."""
    try:
        yield
    except InvalidInput as error:
        field = str(error.ids.get("field"))
        if field not in typed:
            raise
        raise typer.BadParameter(str(error).partition(f"{field} ")[2], param_hint=f"'{typed[field]}'") from None


def refuse_unknown(session: "Session", wanted: "JobFilter") -> None:
    """Tell a slip of the pen from a task or a queue without jobs: to be asked when nothing was found.

    Raises:
        QueueNotFound, TaskUnknown: there is none of this name; the message says which there are.
    """
    from db.jobs.filter import known_tasks
    from db.jobs.limits import queues

    if wanted.queue is not None and wanted.queue not in (there := queues(session)):
        raise QueueNotFound(queue=wanted.queue, queues=there)
    if wanted.task is not None and wanted.task not in (known := known_tasks(session)):
        raise TaskUnknown(task=wanted.task, tasks=known or "none")


def said(wanted: "JobFilter") -> str:
    """Return a filter in words, to stand behind `jobs`; its states are said elsewhere."""
    from cli.output import printable

    words = ""
    if wanted.task is not None:
        words += f" of {printable(wanted.task)}"
    if wanted.queue is not None:
        words += f" in queue {printable(wanted.queue)}"
    if wanted.older_than is not None:
        words += f", older than {duration(wanted.older_than.total_seconds())}"
    if wanted.newer_than is not None:
        words += f", newer than {duration(wanted.newer_than.total_seconds())}"
    return words


def duration(seconds: float | None) -> str:
    """Return a duration as people say it, in one unit: 90 ms, 4.2 s, 10 min, 2.5 h, 3 d; nothing for None."""
    if seconds is None:
        return ""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    for most, unit, size in ((120, "s", 1), (7_200, "min", 60), (172_800, "h", 3_600)):
        if seconds < most:
            return f"{round(seconds / size, 1):g} {unit}"
    return f"{round(seconds / 86_400, 1):g} d"
