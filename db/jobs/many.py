"""What an operator does to many jobs at once: selected by a filter, counted for the question, and moved in batches.

Promise: exactly the jobs that were counted are met, each at most once and only if it is still in a state for that. Each
batch is the caller's transaction, in which the one record of the command counts on: it is right whenever the command
ends, also when it is killed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, text

from db.checks import checked_limit
from db.errors import InvalidState
from db.jobs.control import FROM, Verb, move
from db.jobs.job import Job, JobState
from db.jobs.operators import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.orm import Session

    from db.jobs.filter import JobFilter

BATCH: Final = 1_000
"""So many jobs are moved in one transaction."""

MOST: Final = 1_000_000
"""So many jobs are selected at once: their ids are kept in memory."""

_COUNT_ON: Final = text("""
UPDATE operator_actions SET details = jsonb_set(details, '{moved}', to_jsonb((details->>'moved')::int + :moved))
 WHERE id = :id""")


@dataclass(frozen=True, slots=True)
class Selected:
    """The jobs that a filter takes: their ids, oldest first, and how many are in which state.

    `more` says that there are others, beyond the most that are selected at once.
    """

    ids: list[int]
    states: Counter[JobState]
    more: bool


def selected(session: Session, verb: Verb, wanted: JobFilter, *, most: int = MOST) -> Selected:
    """Return the jobs to which something is to be done, for the question and for `begin`.

    Args:
        session: any session; nothing is locked.
        verb: what is to be done.
        wanted: which jobs; its states must be named, and be those in which that can be done.
        most: at most so many, the oldest; 1 to a million.

    Raises:
        InvalidInput: a field of the filter, or `most`, is out of range.
    """
    if not wanted.states or set(wanted.states) - set(FROM[verb]):
        raise InvalidState(field="states", states=", ".join(FROM[verb]), value=", ".join(wanted.states) or "none")
    checked_limit("most", most, most=MOST)
    found = select(Job.id, Job.state).where(*wanted.conditions()).order_by(Job.id).limit(most + 1)
    rows = session.execute(found).all()
    states = Counter(JobState(state) for _, state in rows[:most])
    return Selected([id_ for id_, _ in rows[:most]], states, more=len(rows) > most)


def begin(session: Session, verb: Verb, wanted: JobFilter, asked: int, actor: str) -> int:
    """Write down what is begun, and return the number of that record for `move_batch`.

    Raises:
        InvalidText: actor is no name.
    """
    subject = wanted.task or wanted.queue or "*"
    action = record(session, actor, f"jobs.{verb}", subject, filter=wanted.told(), asked=asked, moved=0)
    session.flush()
    return action.id


def move_batch(session: Session, verb: Verb, ids: Sequence[int], actor: str, action_id: int) -> int:
    """Do one thing to one batch of the selected jobs, count it in the record, and return to how many it was done.

    Left out are those that have moved on, and of those to be retried the ones whose dedupe_key a live job has.
    """
    moved = move(session, verb, ids, actor)
    session.execute(_COUNT_ON, {"id": action_id, "moved": moved})
    return moved
