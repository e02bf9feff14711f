"""`harbor jobs stats`: how queues and tasks are doing, in numbers."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import typer

from cli.filters import duration
from cli.output import Json, as_json, table

if TYPE_CHECKING:
    from db.jobs.limits import QueueLimits
    from db.jobs.stats import Figures, Stats

app = typer.Typer()

LIVE = ("due", "later", "blocked", "published", "running", "lost")
COUNTS = ("due", "later", "blocked", "publ.", "runs", "lost", "dead")
_TIMES = ("oldest", "done/s", "wait p50, p99", "run p50, p99")
_PRUNED_SECONDS = 90_000  # A day, and an hour for the pruning to come by.


@app.command(epilog="Example: harbor jobs stats")
def stats(*, json: Json = False) -> None:
    """Show each queue and each task: how many jobs are where, how old the oldest is, how long they took.

    `later` are not due yet; `blocked` wait for an older job of their ordering
    key; `publ.` have a message that no worker has started; `lost` have a
    worker that says nothing any more; `dead` are those of 24 hours. A wait is
    from the message to the start. Rates are those of the last 10 seconds,
    waits and runs those of the last hour. Counts end at 10,000, with a `+`;
    in JSON `at_least` names those. `rows` is how long the ledger is as
    PostgreSQL's statistics have it, null before its first ANALYZE.
    """
    from db.jobs.stats import stats as now
    from db.session import snapshot

    with snapshot() as session:
        found = now(session)
    if json:
        as_json(told(found))
        return
    # Counts and times apart: together they are wider than a terminal.
    table(("queue", *COUNTS), [(name, *counts(figures)) for name, figures in found.queues.items()])
    table(("queue", *_TIMES, "limits"), [(q, *_times(f), limits(found.limits[q])) for q, f in found.queues.items()])
    if found.tasks:
        table(("task", *COUNTS), [(name, *counts(figures)) for name, figures in found.tasks.items()])
        table(("task", *_TIMES), [(name, *_times(figures)) for name, figures in found.tasks.items()])
    for sentence in _notes(found):
        print(sentence)


def told(found: "Stats") -> dict[str, Any]:
    """Return what a script gets to read."""
    return {
        "queues": {name: {**asdict(f), **asdict(found.limits[name])} for name, f in found.queues.items()},
        "tasks": {name: asdict(figures) for name, figures in found.tasks.items()},
        "rows": found.rows,
        "oldest_done_seconds": found.oldest_done_seconds,
    }


def counted(figures: "Figures", what: str) -> str:
    """Return a count as it is shown: with a plus where it was not counted to its end."""
    return f"{getattr(figures, what):,}{'+' if what in figures.at_least else ''}"


def number(figures: "Figures", what: str) -> int | str:
    """Return a count for a table, which puts numbers on the right; as text only where it has a plus."""
    return counted(figures, what) if what in figures.at_least else int(getattr(figures, what))


def limits(told: "QueueLimits") -> str:
    """Return a queue's limits in words; nothing when there are none."""
    words = ["paused"] if told.paused else []
    if told.max_in_flight is not None:
        words.append(f"{told.max_in_flight:,} in flight")
    if told.rate_per_second is not None:
        words.append(f"{told.rate_per_second:g}/s")
    return ", ".join(words)


def counts(figures: "Figures") -> list[int | str]:
    """Return the counts under the headings of `COUNTS`."""
    return [number(figures, what) for what in (*LIVE, "dead")]


def _times(figures: "Figures") -> tuple[str, ...]:
    return (
        duration(figures.oldest_due_seconds),
        f"{figures.done_per_second:.1f}",
        _pair(figures.wait_seconds),
        _pair(figures.run_seconds),
    )


def _pair(seconds: tuple[float, float] | None) -> str:
    return "" if seconds is None else ", ".join(map(duration, seconds))


def _notes(found: "Stats") -> list[str]:
    notes = [] if found.rows is None else [f"The ledger has about {found.rows:,} rows."]
    again = sum(figures.again for figures in found.queues.values())
    if again:
        notes.append(f"{again:,} of the published jobs were sent more than once: workers are missing, or behind.")
    stopping = sum(figures.stopping for figures in found.queues.values())
    if stopping:
        notes.append(f"{stopping:,} running jobs were asked to stop.")
    if found.oldest_done_seconds is not None and found.oldest_done_seconds > _PRUNED_SECONDS:
        age = duration(found.oldest_done_seconds)
        notes.append(f"The oldest job that is done is {age} old: jobs.prune does not run, or does not keep up.")
    return notes
