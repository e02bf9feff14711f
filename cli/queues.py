"""`harbor queues`: see how long each queue is, pause and resume it, and limit what its workers get."""

from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.actor import Actor
from cli.figures import limits, number
from cli.filters import duration, options
from cli.output import Json, as_json, shown, table

app = typer.Typer(
    no_args_is_help=True,
    help="See how long each queue is, pause and resume it, and limit what its workers get.",
    short_help="See how long queues are; pause, resume and limit them.",
    epilog="Example: harbor queues list",
)

_Queue = Annotated[str, typer.Argument(help="The queue's name, as `harbor queues list` shows it.")]


@app.command("list", epilog="Example: harbor queues list")
def list_(*, json: Json = False) -> None:
    """List queues: what is due in each, what its workers have, and what they may."""
    from db.jobs.stats import stats
    from db.session import snapshot

    with snapshot() as session:
        found = stats(session)
    if json:
        as_json([{"queue": name, **asdict(f), **asdict(found.limits[name])} for name, f in found.queues.items()])
        return
    counts = ("due", "later", "blocked", "published", "running")
    rows = [
        (name, *(number(f, what) for what in counts), duration(f.oldest_due_seconds), limits(found.limits[name]))
        for name, f in found.queues.items()
    ]
    table(("queue", *counts, "oldest due", "limits"), rows)


@app.command(epilog="Example: harbor queues pause bulk")
def pause(queue: _Queue, *, actor: Actor, json: Json = False) -> None:
    """Start nothing more from a queue. Jobs can still be enqueued; those that were sent to workers still run."""
    from db.jobs import limits as limits_
    from db.session import transaction

    with transaction() as session:
        changed = limits_.pause(session, queue, actor)
    _report(queue, "is paused" if changed else "was paused already", json=json)


@app.command(epilog="Example: harbor queues resume bulk")
def resume(queue: _Queue, *, actor: Actor, json: Json = False) -> None:
    """Let a paused queue go on."""
    from db.jobs import limits as limits_
    from db.session import transaction

    with transaction() as session:
        changed = limits_.resume(session, queue, actor)
    _report(queue, "goes on" if changed else "was not paused", json=json)


@app.command(epilog="Example: harbor queues limit bulk --max-in-flight 4 --rate 10")
def limit(
    queue: _Queue,
    *,
    max_in_flight: Annotated[
        str | None, typer.Option(metavar="JOBS", help="So many jobs at once, published or running; or none.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(metavar="PER_SECOND", help="So many jobs a second, such as 10 or 0.5; or none.")
    ] = None,
    actor: Actor,
    json: Json = False,
) -> None:
    """Limit a queue for all its workers together; `none` lifts a limit, and one that is not named stays."""
    from db.jobs import limits as limits_
    from db.session import transaction

    changes: dict[str, Any] = {}
    if max_in_flight is not None:
        changes["max_in_flight"] = _number(max_in_flight, int, "--max-in-flight")
    if rate is not None:
        changes["rate_per_second"] = _number(rate, float, "--rate")
    if not changes:
        raise typer.BadParameter("one of them is needed.", param_hint="'--max-in-flight' or '--rate'")
    with options(max_in_flight="--max-in-flight", rate_per_second="--rate"), transaction() as session:
        limits_.limit(session, queue, changes, actor)
    _report(queue, "is changed", json=json)


def _number(told: str, kind: type, option: str) -> Any:
    if told == "none":
        return None
    try:
        return kind(told)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise typer.BadParameter(f"must be {wanted} or none, and was {told!r}.", param_hint=f"'{option}'") from None


def _report(queue: str, what: str, *, json: bool) -> None:
    from db.jobs.limits import limits_of
    from db.session import snapshot

    with snapshot() as session:
        now = limits_of(session, queue)
    if json:
        as_json({"queue": queue, **asdict(now)})
    else:
        print(f"Queue {shown(queue)} {what}; its limits: {limits(now) or 'none'}.")
