"""`harbor schedule`: what is due when, what became of it, and what an operator adds, pauses and starts by hand."""

import json as json_
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from cli.actor import Actor
from cli.filters import options as named
from cli.filters import seconds
from cli.hints import typed
from cli.output import Json, as_json, shown, table

if TYPE_CHECKING:
    from db.schedule import ListedSchedule

app = typer.Typer(
    no_args_is_help=True,
    help="See what is due when and what became of it; add, pause and start periodic jobs.",
    short_help="See what is due when; add, pause and start periodic jobs.",
    epilog="Example: harbor schedule list",
)

_FIELDS = ("every", "crontab", "timezone", "misfire_grace_seconds", "priority", "max_attempts", "expires")
_OPTIONS = {field: f"--{field.replace('_', '-')}" for field in (*_FIELDS, "dedupe_key", "ordering_key")}

_Name = Annotated[str, typer.Argument(help="The schedule's name, as `harbor schedule list` shows it.")]


@app.command("list", epilog="Example: harbor schedule list --overdue")
def list_(
    *,
    overdue: Annotated[
        bool, typer.Option("--overdue", help="Only those whose next tick is 30 s late, and exit 1 if there are any.")
    ] = False,
    json: Json = False,
) -> None:
    """List schedules: when each is due next, and what became of its last tick.

    A tick made a job, whose state is shown, or was left out: `paused`;
    `misfire`, it was too late; `superseded`, a newer one was due, too;
    `overlap`, the job before had not ended. When ticks are overdue, no
    Beat runs, or its log says why it cannot decide them.
    """
    from db import schedule
    from db.session import snapshot

    with snapshot() as session:
        found = schedule.overdue(session) if overdue else schedule.listed(session)
    if json:
        as_json([_plain(one) for one in found])
    elif found:
        columns = ("name", "task", "when", "next due", "last tick", "outcome", "from")
        table(columns, [_row(one) for one in found])
    else:
        print("No schedules are overdue." if overdue else "No schedules.")
    if overdue and found:
        raise typer.Exit(1)


# Without \b the lines would be filled, and a crontab broken.
@app.command(
    epilog="\b\nExample: harbor schedule add books inventory.reconcile --every 900 --overlap skip"
    "\nExample: harbor schedule add nightly inventory.reconcile --crontab '0 3 * * *' --timezone Europe/Berlin"
)
def add(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    task: Annotated[str, typer.Argument(help="The task of its jobs.")],
    *,
    every: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="900 for seconds, 90s, 15m, 2h, 1d; from the Unix epoch."),
    ] = None,
    crontab: Annotated[
        str | None, typer.Option(help="Minute, hour, day of month, month, day of week; a day has to match both.")
    ] = None,
    timezone: Annotated[str, typer.Option(help="Whose clock the crontab is about.")] = "UTC",
    args: Annotated[str, typer.Option(help="The task's arguments by place, a JSON list.")] = "[]",
    kwargs: Annotated[str, typer.Option(help="The task's arguments by name, a JSON object.")] = "{}",
    overlap: Annotated[
        Literal["allow", "skip"], typer.Option(help="skip: not while the job before has not ended.")
    ] = "allow",
    catch_up: Annotated[
        Literal["latest", "all", "skip"],
        typer.Option(help="Which of several late ticks run; skip: the newest, if at most 10 s late."),
    ] = "latest",
    misfire_grace_seconds: Annotated[float, typer.Option(help="A tick that is later does not run.")] = 600.0,
    priority: Annotated[int | None, typer.Option(help="Of its jobs: 0 goes first, 9 last.")] = None,
    max_attempts: Annotated[int | None, typer.Option(help="How often a job is tried.")] = None,
    expires: Annotated[
        float | None,
        typer.Option(parser=seconds, metavar="TIME", help="After that, such as 90s, a job is not started any more."),
    ] = None,
    dedupe_key: Annotated[str | None, typer.Option(help="Of its jobs.")] = None,
    ordering_key: Annotated[str | None, typer.Option(help="Of its jobs.")] = None,
    actor: Actor,
    json: Json = False,
) -> None:
    """Add a schedule. It is first due after now; running Beats see it within a second or so."""
    from db import schedule
    from db.session import transaction

    if (every is None) == (crontab is None):
        raise typer.BadParameter("give one of them.", param_hint="'--every' or '--crontab'")
    options = {
        "priority": priority,
        "max_attempts": max_attempts,
        "expires": expires,
        "dedupe_key": dedupe_key,
        "ordering_key": ordering_key,
    }
    with named(**_OPTIONS), transaction() as session:
        declared = schedule.Declaration(
            name,
            task,
            every_seconds=every,
            crontab=crontab,
            timezone=timezone,
            args=_told(args, "args", list),
            kwargs=_told(kwargs, "kwargs", dict),
            options={key: value for key, value in options.items() if value is not None},
            misfire_grace_seconds=misfire_grace_seconds,
            catch_up=catch_up,
            overlap=overlap,
        )
        schedule.add(session, declared)
        _record(session, actor, "schedule.add", name, task=task, every_seconds=every, crontab=crontab)
        found = schedule.show(session, name)
    _report(found, "is added", json=json)


def _told(value: str, option: str, kind: type) -> Any:
    try:
        told = json_.loads(value)
    except ValueError:
        told = None
    if not isinstance(told, kind):
        wanted = "list like '[42]'" if kind is list else "object like '{\"after\": 42}'"
        raise typer.BadParameter(f"must be a JSON {wanted}.", param_hint=f"'--{option}'")
    return told


@app.command(epilog="Example: harbor schedule remove nightly-books")
def remove(name: _Name, *, actor: Actor, json: Json = False) -> None:
    """Remove a schedule that an operator added. Jobs that it made stay.

    One that celeryconfig declares would come back with the next Beat that
    starts: take it out there, or pause it.
    """
    from db import schedule
    from db.session import transaction

    with transaction() as session:
        schedule.remove(session, name)
        _record(session, actor, "schedule.remove", name)
    if json:
        as_json({"name": name, "removed": True})
    else:
        print(f"Schedule {shown(name)} is removed.")


@app.command(epilog="Example: harbor schedule pause reservations-expire")
def pause(name: _Name, *, actor: Actor, json: Json = False) -> None:
    """Leave out a schedule's ticks until it is resumed. A job that runs is not stopped.

    Each tick that is left out is written down as `paused`.
    """
    from db import schedule
    from db.session import transaction

    with transaction() as session:
        changed = schedule.pause(session, name)
        if changed:
            _record(session, actor, "schedule.pause", name)
        found = schedule.show(session, name)
    _report(found, "is paused" if changed else "was paused already", json=json)


@app.command(epilog="Example: harbor schedule resume reservations-expire")
def resume(name: _Name, *, actor: Actor, json: Json = False) -> None:
    """Let a schedule go on with its next tick. What was due during the pause does not run."""
    from db import schedule
    from db.session import transaction

    with transaction() as session:
        changed = schedule.resume(session, name)
        if changed:
            _record(session, actor, "schedule.resume", name)
        found = schedule.show(session, name)
    _report(found, "goes on" if changed else "was not paused", json=json)


@app.command("run-now", epilog="Example: harbor schedule run-now inventory-reconcile")
def run_now(name: _Name, *, actor: Actor, json: Json = False) -> None:
    """Enqueue a schedule's job once more, now. It is no tick: no policy holds it back, and the next tick comes as ever.

    A relay and a worker have to run for it to be done.
    """
    from db import schedule
    from db.session import transaction

    with transaction() as session:
        task_id = schedule.run_now(session, name)
        _record(session, actor, "schedule.run-now", name, task_id=str(task_id))
    if json:
        as_json({"name": name, "task_id": str(task_id)})
    else:
        print(f"Job {task_id} of schedule {shown(name)} is enqueued.")


def _record(session: Any, actor: str, action: str, name: str, **details: Any) -> None:
    from db.jobs.operators import record

    record(session, actor, action, name, **details)


def _row(one: "ListedSchedule") -> tuple[object, ...]:
    return (
        one.name,
        one.task,
        _when(one),
        _next(one),
        one.last_due_at,
        f"skipped: {one.last_skipped}" if one.last_skipped else _job(one),
        one.source,
    )


def _when(one: "ListedSchedule") -> str:
    if one.every_seconds is not None:
        return f"every {one.every_seconds:g} s"
    return f"{one.crontab} {one.timezone}"


def _next(one: "ListedSchedule") -> str:
    coming = shown(one.next_due_at) or "never"
    return f"{coming}{', paused' if one.paused else ''}{', overdue' if one.overdue else ''}"


def _job(one: "ListedSchedule") -> str | None:
    return None if one.last_task_id is None else f"job {one.last_job_state or 'done and pruned'}"


def _report(one: "ListedSchedule", what: str, *, json: bool) -> None:
    if json:
        as_json(_plain(one))
    else:
        then = f"its next tick is at {shown(one.next_due_at)}"
        if one.paused:
            then = f"`harbor schedule resume {one.name}` lets it go on"
        print(typed(f"Schedule {shown(one.name)} ({shown(_when(one))}) {what}; {shown(then)}."))


def _plain(one: "ListedSchedule") -> dict[str, Any]:
    return {key: str(value) if isinstance(value, UUID) else value for key, value in asdict(one).items()}
