"""Running a job: claimed before it starts, fenced at every commit, and ended in the transaction of its effect.

Promise: the effect and `done` commit together or not at all, and of several workers that have the same message one runs
it. Whoever lost the lease in between (its machine slept, its connection was cut) cannot commit any more: each commit
ends with a statement that finds the row by its lease token, and fails when the row is another's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

from sqlalchemy import text

from db.errors import JobCancelled, JobLeaseLost
from db.jobs.job import JobState
from db.statements import send_as_it_is

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

LONGESTBACKOFF_SECONDS: Final = 600
LOST: Final = "its worker said nothing until the lease ran out"
_ERROR_CHARACTERS: Final = 2_000

_MINE: Final = "id = :job_id AND lease_token = :token AND state = 'running'"
_STOPPED: Final = "(cancel_requested OR expires_at <= statement_timestamp())"

# One statement, which is a transaction of its own: no crash leaves a row between two states. A row that nobody may run
# any more ends here. Nobody waits for the disk, either: a claim that a crash of the server undoes never was, since its
# token is gone with it, and whatever commits for it later waits for the disk and has this before it.
_CLAIM: Final = text(f"""
WITH claimed AS (
  UPDATE jobs
     SET state = CASE WHEN {_STOPPED} THEN 'cancelled' WHEN attempt >= max_attempts THEN 'dead' ELSE 'running' END,
         attempt = CASE WHEN {_STOPPED} OR attempt >= max_attempts THEN attempt ELSE attempt + 1 END,
         lease_token = CASE WHEN {_STOPPED} OR attempt >= max_attempts THEN NULL ELSE CAST(:token AS uuid) END,
         lease_until = CASE WHEN {_STOPPED} OR attempt >= max_attempts THEN NULL
                            ELSE statement_timestamp() + make_interval(secs => :lease_seconds) END,
         started_at = CASE WHEN {_STOPPED} OR attempt >= max_attempts THEN started_at ELSE statement_timestamp() END
   WHERE task_id = :task_id AND task = :task
     AND (state = 'published' OR state = 'running' AND lease_until <= statement_timestamp())
  RETURNING id, state, attempt, max_attempts, args, kwargs,
            (SELECT was.state = 'running' FROM jobs was WHERE was.id = jobs.id) AS lost),
told AS (
  INSERT INTO job_attempts (job_id, attempt, outcome, error)
  SELECT id, attempt - (state = 'running')::int, 'lost', '{LOST}' FROM claimed WHERE lost
  UNION ALL
  SELECT id, attempt, CASE state WHEN 'dead' THEN 'exhausted' ELSE 'cancelled' END,
         CASE state WHEN 'dead' THEN format('all %s attempts are used up', max_attempts)
                    ELSE 'cancelled, or expired, before it started' END
    FROM claimed WHERE state <> 'running')
SELECT id, state, attempt, max_attempts, args, kwargs, set_config('synchronous_commit', 'off', true) FROM claimed""")

# Full jitter: a random share of a wait that doubles, so that what failed together does not come back together.
BACKOFF: Final = f"random() * least({LONGESTBACKOFF_SECONDS}, power(2, least(attempt, 30) - 1))"

_COMPLETE: Final = text(f"UPDATE jobs SET state = 'done' WHERE {_MINE} AND NOT cancel_requested RETURNING id")
_FENCE: Final = text(f"SELECT cancel_requested FROM jobs WHERE {_MINE} FOR NO KEY UPDATE")
_EXTEND: Final = text(f"""
UPDATE jobs SET lease_until = statement_timestamp() + make_interval(secs => :lease_seconds)
 WHERE {_MINE} RETURNING cancel_requested""")
_SETTLE: Final = text(f"""
WITH settled AS (
  UPDATE jobs
     SET state = CASE WHEN :state = 'ready' AND cancel_requested THEN 'cancelled'
                      WHEN :state = 'ready' AND :counted AND attempt >= max_attempts THEN 'dead'
                      ELSE :state END,
         available_at = CASE WHEN :state <> 'ready' THEN available_at ELSE statement_timestamp()
                             + make_interval(secs => coalesce(:wait_seconds, {BACKOFF})) END,
         attempt = CASE WHEN :counted THEN attempt ELSE attempt - 1 END
   WHERE {_MINE}
  RETURNING id, attempt, state, available_at),
told AS (
  INSERT INTO job_attempts (job_id, attempt, outcome, error)
  SELECT id, CASE WHEN :counted THEN attempt ELSE attempt + 1 END, :outcome, :error FROM settled WHERE :outcome <> '')
SELECT state, extract(epoch FROM available_at - statement_timestamp()) AS wait_seconds FROM settled""")

_NOTE: Final = text("""
INSERT INTO job_attempts (job_id, attempt, outcome, error) VALUES (:job_id, :attempt, 'failed when done', :error)""")


@dataclass(slots=True, eq=False)
class Claim:
    """One attempt at a job, and the right to commit for it as long as `token` is the row's.

    `completed` says that `done` is written, in a transaction that may still be about to commit. `stop` is set by the
    heartbeat: why this attempt should end, since the job was cancelled or belongs to another.
    """

    job_id: int
    task_id: UUID
    task: str
    token: UUID
    attempt: int
    max_attempts: int
    args: list[Any]
    kwargs: dict[str, Any]
    completed: bool = False
    stop: type[JobCancelled | JobLeaseLost] | None = field(default=None)

    def check(self) -> None:
        """Raise JobCancelled or JobLeaseLost when the heartbeat has seen that this attempt should end."""
        if self.stop is not None:
            raise self.stop(task_id=self.task_id)

    def complete(self, session: Session) -> None:
        """Write `done` as the last statement of the caller's transaction, whose commit makes both true.

        Raises:
            JobCancelled: somebody asked for it to stop.
            JobLeaseLost: the job is another's by now, or over.
        """
        if send_as_it_is(session.connection(), _COMPLETE, self._mine).first() is None:
            self.fence(session)
            raise JobLeaseLost(task_id=self.task_id)
        self.completed = True

    def fence(self, session: Session) -> None:
        """Hold on to the job's row until the caller's transaction ends, so that nobody claims it before the commit.

        Raises:
            JobCancelled, JobLeaseLost: as `complete` does.
        """
        cancel_requested = send_as_it_is(session.connection(), _FENCE, self._mine).scalar_one_or_none()
        if cancel_requested is None:
            raise JobLeaseLost(task_id=self.task_id)
        if cancel_requested:
            raise JobCancelled(task_id=self.task_id)

    def extend(self, session: Session, lease_seconds: float) -> None:
        """Let the lease last so long from now. Raises JobCancelled, JobLeaseLost: as `complete` does."""
        answer = session.execute(_EXTEND, {**self._mine, "lease_seconds": lease_seconds}).scalar_one_or_none()
        if answer is None:
            raise JobLeaseLost(task_id=self.task_id)
        if answer:
            raise JobCancelled(task_id=self.task_id)

    @property
    def _mine(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "token": self.token}


@dataclass(frozen=True, slots=True)
class Settled:
    """How an attempt ended that did not complete: the job's state now, and in how many seconds it is due again."""

    state: JobState
    wait_seconds: float


def claim(connection: Connection, task_id: UUID, task: str, lease_seconds: float) -> Claim | None:
    """Take a job for this worker, in a transaction of its own; None when there is nothing to do with this message.

    One statement, so `single_statement()` will do.

    It is taken when its message was published, or when the worker that ran it has let its lease run out. It ends
    instead when it was cancelled, is too late, or has used up its attempts, so that a job that kills its worker is not
    run for ever.

    Args:
        connection: committed before the task starts.
        task_id: the message's id.
        task: the message's task; a row of another task is not taken.
        lease_seconds: how long the job is this worker's when nobody extends the lease.
    """
    token = uuid4()
    told = {"task_id": task_id, "task": task, "token": token, "lease_seconds": lease_seconds}
    row = send_as_it_is(connection, _CLAIM, told).one_or_none()
    if row is None or row.state != JobState.RUNNING:
        return None
    return Claim(row.id, task_id, task, token, row.attempt, row.max_attempts, row.args, row.kwargs)


def give_back(session: Session, claim: Claim) -> Settled | None:
    """Let another worker have the job at once, as if this one had never claimed it; None when it is not ours.

    All of these end an attempt, in a transaction of their own, and answer None when the lease was lost: then it is for
    others to say how the job goes on.
    """
    told = "its worker was asked to stop"
    return _settle(session, claim, JobState.READY, counted=False, wait_seconds=0.0, outcome="given back", error=told)


def snooze(session: Session, claim: Claim, delay_seconds: float) -> Settled | None:
    """Run it again in so many seconds; the attempt does not count."""
    return _settle(session, claim, JobState.READY, counted=False, wait_seconds=delay_seconds)


def retry(session: Session, claim: Claim, error: str) -> Settled | None:
    """Run it again after a wait that grows, or bury it when this was the last attempt."""
    return _settle(session, claim, JobState.READY, counted=True, outcome="failed", error=error)


def bury(session: Session, claim: Claim, error: str) -> Settled | None:
    """It failed in a way that trying again does not change: an operator has to look."""
    return _settle(session, claim, JobState.DEAD, counted=True, outcome="refused", error=error)


def note_failure(session: Session, claim: Claim, error: str) -> None:
    """Write down that a job's task failed behind the transaction that completed it, which stays as it is."""
    told = {"job_id": claim.job_id, "attempt": claim.attempt, "error": _storable(error)}
    session.execute(_NOTE, told)


def cancel(session: Session, claim: Claim, reason: str, outcome: str = "cancelled") -> Settled | None:
    """It is not wanted any more, or there is nothing to do."""
    return _settle(session, claim, JobState.CANCELLED, counted=True, outcome=outcome, error=reason)


def _settle(
    session: Session,
    claim: Claim,
    state: JobState,
    *,
    counted: bool,
    wait_seconds: float | None = None,
    outcome: str = "",
    error: str | None = None,
) -> Settled | None:
    told = {
        "job_id": claim.job_id,
        "token": claim.token,
        "state": state.value,
        "counted": counted,
        "wait_seconds": wait_seconds,
        "outcome": outcome,
        "error": None if error is None else _storable(error),
    }
    row = session.execute(_SETTLE, told).one_or_none()
    return None if row is None else Settled(JobState(row.state), float(row.wait_seconds))


def _storable(error: str) -> str:
    """Return an error's text as a column can hold it, and no longer than a person reads."""
    return error.replace("\0", "\\0")[:_ERROR_CHARACTERS]
