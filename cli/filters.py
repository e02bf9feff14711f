"""Which jobs are meant: the options that `harbor jobs list`, `retry`, `cancel` and `bury` share."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from db.jobs import JobFilter

_AGE = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_LONGEST = timedelta(days=36_500)


def _age(told: str) -> timedelta:
    found = _AGE.fullmatch(told.strip())
    try:
        age = timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None
    except OverflowError:
        age = _LONGEST + timedelta(1)
    if age is None or age > _LONGEST:
        raise typer.BadParameter(f"must be like 90s, 10m, 2h or 3d, at most 36500d, and was {told!r}.")
    return age


Task = Annotated[str | None, typer.Option(help="Only jobs of this task.")]
Queue = Annotated[str | None, typer.Option(help="Only jobs of this queue.")]
OlderThan = Annotated[
    timedelta | None, typer.Option(parser=_age, metavar="AGE", help="Only jobs enqueued longer ago: 90s, 10m, 2h, 3d.")
]
NewerThan = Annotated[
    timedelta | None, typer.Option(parser=_age, metavar="AGE", help="Only jobs enqueued since: 90s, 10m, 2h, 3d.")
]


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
