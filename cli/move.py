"""`harbor jobs retry|cancel|bury`: change jobs by hand, some by their ids or all that a filter takes."""

import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import UUID

import typer

from cli.actor import Actor
from cli.errors import explain
from cli.filters import NewerThan, OlderThan, Queue, Task, options, refuse_unknown, said
from cli.output import Json, as_json
from db.errors import HarborError

if TYPE_CHECKING:
    from db.jobs import JobFilter, JobState
    from db.jobs.control import Verb
    from db.jobs.many import Selected

app = typer.Typer()

_Ids = Annotated[list[UUID] | None, typer.Argument(help="Ids of jobs; else all that the options take.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask back.")]

_DONE = {"retry": "ready again", "cancel": "cancelled, or asked to stop where they run", "bury": "dead"}
_LEFT_OUT = {
    "retry": "have moved on, or a live job has their dedupe_key",
    "cancel": "have ended",
    "bury": "have started or ended",
}


@app.command(
    epilog="Example: harbor jobs retry --task reservations.release --newer-than 2h, or harbor jobs retry TASK_ID"
)
def retry(
    task_ids: _Ids = None,
    *,
    state: Annotated[
        Literal["dead", "cancelled"] | None, typer.Option(help="Which of them; dead unless given.")
    ] = None,
    task: Task = None,
    queue: Queue = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    yes: _Yes = False,
    actor: Actor,
    json: Json = False,
) -> None:
    """Let dead or cancelled jobs run again: now, and with all their attempts.

    A job is left out while a newer one with its dedupe_key has not ended.
    """
    wanted = _wanted(task_ids, (state,) if state else (), ("dead",), task, queue, older_than, newer_than)
    _move("retry", task_ids, wanted, actor, yes=yes, json=json)


@app.command(epilog="Example: harbor jobs cancel --task backfills.advance --state ready, or harbor jobs cancel TASK_ID")
def cancel(
    task_ids: _Ids = None,
    *,
    state: Annotated[
        Literal["ready", "published", "running"] | None,
        typer.Option(help="Which of them; all three unless given."),
    ] = None,
    task: Task = None,
    queue: Queue = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    yes: _Yes = False,
    actor: Actor,
    json: Json = False,
) -> None:
    """Cancel jobs that have not ended. One that runs is asked to stop, and commits nothing from then on."""
    live = ("ready", "published", "running")
    wanted = _wanted(task_ids, (state,) if state else (), live, task, queue, older_than, newer_than)
    _move("cancel", task_ids, wanted, actor, yes=yes, json=json)


@app.command(epilog="Example: harbor jobs bury --queue bulk --older-than 1d, or harbor jobs bury TASK_ID")
def bury(
    task_ids: _Ids = None,
    *,
    state: Annotated[
        Literal["ready", "published"] | None, typer.Option(help="Which of them; both unless given.")
    ] = None,
    task: Task = None,
    queue: Queue = None,
    older_than: OlderThan = None,
    newer_than: NewerThan = None,
    yes: _Yes = False,
    actor: Actor,
    json: Json = False,
) -> None:
    """Put jobs aside that have not started: they are dead, kept for 30 days, and can be retried."""
    waiting = ("ready", "published")
    wanted = _wanted(task_ids, (state,) if state else (), waiting, task, queue, older_than, newer_than)
    _move("bury", task_ids, wanted, actor, yes=yes, json=json)


def _wanted(
    task_ids: list[UUID] | None,
    states: tuple[str, ...],
    default: tuple[str, ...],
    task: str | None,
    queue: str | None,
    older_than: timedelta | None,
    newer_than: timedelta | None,
) -> "JobFilter | None":
    """Return the filter, or None when there are ids. Exits with 2 when there is neither, or both."""
    from db.jobs import JobFilter, JobState

    filtered = bool(states) or any(told is not None for told in (task, queue, older_than, newer_than))
    if filtered == bool(task_ids):
        sys.stderr.write(
            "harbor: say which jobs: their ids, or a filter (--task, --queue, --state, --older-than, --newer-than).\n"
        )
        raise typer.Exit(2)
    if task_ids:
        return None
    return JobFilter(task, queue, tuple(map(JobState, states or default)), older_than, newer_than)


def _move(
    name: str, task_ids: list[UUID] | None, wanted: "JobFilter | None", actor: str, *, yes: bool, json: bool
) -> None:
    from db.jobs.control import Verb

    if wanted is None:
        _move_each(Verb(name), task_ids or [], actor, json=json)
    else:
        _move_many(Verb(name), wanted, actor, yes=yes, json=json)


def _move_each(verb: "Verb", task_ids: list[UUID], actor: str, *, json: bool) -> None:
    """Each by itself: one that cannot be moved does not keep the others."""
    from db.jobs import control
    from db.session import transaction

    moved: list[tuple[UUID, JobState]] = []
    for task_id in dict.fromkeys(task_ids):
        try:
            with transaction() as session:
                moved.append((task_id, control.act(session, verb, task_id, actor)))
        except HarborError as error:
            sys.stderr.write(f"harbor: {explain(error)}\n")
    if json:
        as_json([{"task_id": str(task_id), "state": state} for task_id, state in moved])
    else:
        for task_id, state in moved:
            print(f"Job {task_id} is {'asked to stop' if state == 'running' else state}.")
    if len(moved) < len(set(task_ids)):
        raise typer.Exit(1)


def _move_many(verb: "Verb", wanted: "JobFilter", actor: str, *, yes: bool, json: bool) -> None:
    from db.jobs import many
    from db.session import snapshot

    with snapshot() as session, options(task="--task", queue="--queue"):
        selected = many.selected(session, verb, wanted)
        if not selected.ids:
            refuse_unknown(session, wanted)
    asked = len(selected.ids)
    if asked and not yes:
        _ask(verb, wanted, selected)
    moved = _in_batches(verb, wanted, selected, actor) if asked else 0
    if json:
        as_json({"asked": asked, "moved": moved, "more": selected.more})
        return
    if not asked:
        print(f"No such jobs are {' or '.join(wanted.states)}.")
        return
    print(f"{_jobs(moved)} {'is' if moved == 1 else 'are'} {_DONE[verb]}.")
    if moved < asked:
        print(f"{asked - moved:,} were left out: they {_LEFT_OUT[verb]}.")
    if selected.more:
        print("There are more: the same command takes the next.")


def _ask(verb: "Verb", wanted: "JobFilter", selected: "Selected") -> None:
    asked = len(selected.ids)
    states = [f"{count:,} {state}" for state, count in sorted(selected.states.items())]
    one = next(iter(selected.states)) if len(states) == 1 else ""
    which = f"{_jobs(asked, one)}{said(wanted)}{'' if one else ' (' + ', '.join(states) + ')'}"
    question = f"{verb.capitalize()} {which}{', of more' if selected.more else ''}?"
    if not sys.stdin.isatty():
        sys.stderr.write(f"harbor: {question} Nobody can be asked here; say --yes.\n")
        raise typer.Exit(2)
    if not typer.confirm(question, err=True):
        print("Nothing was done.")
        raise typer.Exit(1)


def _jobs(count: int, state: str = "") -> str:
    return f"{count:,} {f'{state} ' if state else ''}job{'' if count == 1 else 's'}"


def _in_batches(verb: "Verb", wanted: "JobFilter", selected: "Selected", actor: str) -> int:
    from rich.console import Console
    from rich.progress import Progress

    from db.jobs import many
    from db.session import transaction

    moved, action_id = 0, None
    with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as progress:
        shown = progress.add_task(verb.capitalize(), total=len(selected.ids))
        for start in range(0, len(selected.ids), many.BATCH):
            batch = selected.ids[start : start + many.BATCH]
            with transaction() as session:
                if action_id is None:
                    action_id = many.begin(session, verb, wanted, len(selected.ids), actor)
                done = many.move_batch(session, verb, batch, actor, action_id)
            moved += done
            progress.advance(shown, len(batch))
    return moved
