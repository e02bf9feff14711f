"""`harbor jobs`: look at jobs, see how it goes, and retry, cancel or bury them by hand."""

import json as json_
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import typer

from cli import figures, move, watch
from cli.filters import NewerThan, OlderThan, Queue, Task, options, refuse_unknown
from cli.hints import typed
from cli.output import Json, as_json, printable, shown, table

if TYPE_CHECKING:
    from db.jobs.read import JobDetails, ListedJob

app = typer.Typer(
    no_args_is_help=True,
    help="Look at jobs, see how it goes, and retry, cancel or bury them by hand.",
    short_help="Look at jobs, see how it goes; retry, cancel or bury them.",
    epilog="Example: harbor jobs list --state dead",
)

_LINE_CHARACTERS = 120


@app.command("list", epilog="Example: harbor jobs list --state dead --task reservations.release --newer-than 2h")
def list_(
    *,
    state: Annotated[
        Literal["ready", "published", "running", "done", "dead", "cancelled"] | None,
        typer.Option(help="Only jobs in this state."),
    ] = None,
    task: Task = None,
    queue: Queue = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    limit: Annotated[int, typer.Option(help="How many, 1 to 1,000.")] = 50,
    after: Annotated[UUID | None, typer.Option(help="Go on behind this id, the last one of the page before.")] = None,
    json: Json = False,
) -> None:
    """List jobs, newest first. `--after` with the last id of a page gives the next one.

    Jobs that are done or cancelled are kept for a day, dead ones for 30.
    In JSON, `available_at` is when a ready job is due, and `sent_again_at`
    when the message of a published one is; null in all other states.
    """
    from db.jobs import JobFilter, JobState, read
    from db.session import snapshot

    wanted = JobFilter(task, queue, (JobState(state),) if state else (), older_than, newer_than)
    with snapshot() as session, options(limit="--limit", task="--task", queue="--queue"):
        found = read.page(session, wanted, limit=limit, after=after)
        if not found:
            refuse_unknown(session, wanted)
    if json:
        as_json([_plain(asdict(job)) for job in found])
        return
    if not found:
        print("No jobs.")
        return
    columns = ("id", "task", "queue", "state", "attempts", "enqueued", "due or ended", "last error")
    table(columns, [_row(job) for job in found], one_line=True)
    if len(found) == limit:
        print(f"There may be more: the same command with --after {found[-1].task_id}")


def _row(job: "ListedJob") -> tuple[object, ...]:
    return (
        job.task_id,
        job.task,
        job.queue,
        _state(job),
        f"{job.attempt} of {job.max_attempts}",
        job.created_at,
        job.available_at if job.state == "ready" else job.finished_at,
        _first_line(job.error, _LINE_CHARACTERS),
    )


def _first_line(error: str | None, most: int) -> str:
    line = printable((error or "").strip().split("\n", 1)[0])
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _state(job: "ListedJob | JobDetails") -> str:
    notes = {
        "blocked": job.blocked,
        "not due yet": job.later,
        "lost": job.lost,
        "asked to stop": job.cancel_requested and job.state == "running",
    }
    return ", ".join([job.state, *(note for note, holds in notes.items() if holds)])


@app.command(epilog="Example: harbor jobs show 01938f5c-9d2a-7c1e-8f00-2f6b8e11c7a4")
def show(
    task_id: Annotated[UUID, typer.Argument(help="The job's id.")],
    *,
    arguments: Annotated[
        bool, typer.Option("--arguments", help="Show its arguments whole; they may be personal.")
    ] = False,
    json: Json = False,
) -> None:
    """Show one job: what it waits for, its attempts with their errors, and what can be done with it.

    Of its arguments only primary keys are shown, unless asked for. In JSON
    `args` and `kwargs` are a list and an object with --arguments, and null
    without.
    """
    from cli.steps import possible, why
    from db.jobs import read
    from db.session import snapshot

    with snapshot() as session:
        job = read.show(session, task_id)
    if json:
        args, kwargs = (job.args, job.kwargs) if arguments else (None, None)
        told = {**asdict(job), "args": args, "kwargs": kwargs, "why": why(job), "can": list(possible(job))}
        as_json(_plain(told))
        return
    _print_job(job, *_arguments(job, whole=arguments))
    if job.attempts:
        _print_attempts(job)
    for action in job.actions:
        print(f"{shown(action.created_at)} {shown(action.actor)}: {shown(action.action)}")
    for sentence in (*why(job), *possible(job).values()):
        print(typed(sentence))


def _print_attempts(job: "JobDetails") -> None:
    """Print one line for each, and the last error whole, which may be of many lines."""
    errors = [_first_line(each.error, _LINE_CHARACTERS) for each in job.attempts]
    rows = [
        (each.attempt, each.outcome, each.created_at, error) for each, error in zip(job.attempts, errors, strict=True)
    ]
    table(("attempt", "outcome", "at", "error"), rows)
    last = next((each.error for each in reversed(job.attempts) if each.error), "").strip()
    if last and printable(last) not in errors:
        for line in last.split("\n"):
            print(f"  {printable(line)}")


def _print_job(job: "JobDetails", args: str, kwargs: str) -> None:
    told = {
        "Job": job.task_id,
        "Task": job.task,
        "Arguments": f"{args} {kwargs}" if kwargs != "{}" else args,
        "Queue": f"{job.queue}, priority {job.priority}",
        "State": _state(job),
        "Attempts": f"{job.attempt} of {job.max_attempts}",
        "Dedupe key": job.dedupe_key,
        "Ordering key": job.ordering_key,
        "Enqueued": job.created_at,
        "Due": job.available_at if job.state == "ready" else None,
        "Published": job.published_at,
        "Started": job.started_at,
        "Lease until": job.lease_until,
        "Ended": job.finished_at,
        "Expires": job.expires_at,
    }
    for name, value in told.items():
        if value is not None:
            print(f"{name:<12} {shown(value)}")


def _arguments(job: "JobDetails", *, whole: bool) -> tuple[str, str]:
    if whole:
        return json_.dumps(job.args, ensure_ascii=False), json_.dumps(job.kwargs, ensure_ascii=False)
    from worker.arguments import primary_keys_only

    return primary_keys_only(job.args), primary_keys_only(job.kwargs)


def _plain(told: dict[str, Any]) -> dict[str, Any]:
    """Return it with ids as text, also those of what stands in its way, and the next moment by what it is."""
    plain = {
        name: str(value) if isinstance(value, UUID) else _plain(value) if name == "head" and value else value
        for name, value in told.items()
    }
    if "available_at" in told:
        plain["available_at"] = told["available_at"] if told["state"] == "ready" else None
        plain["sent_again_at"] = told["available_at"] if told["state"] == "published" else None
    return plain


app.add_typer(move.app)
app.add_typer(figures.app)
app.add_typer(watch.app)
