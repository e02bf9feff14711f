"""The base of every task: claimed when a row stands behind its message, timed, logged, and its failure classified.

Promise: a job's effect and its end commit together, and an error neither loses a job nor runs it for ever. A message
without a row, such as one of plain `send_task`, runs at least once, and Celery tries it again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import celery
import structlog
from billiard.common import terminate_handler_fired  # type: ignore[attr-defined] # The stubs are older than it.
from celery.exceptions import Ignore, Retry
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from db import failpoints, jobs
from db.errors import HarborError, JobCancelled, JobLeaseLost
from db.jobs.heartbeat import Interrupted, heartbeat
from db.session import single_statement, task_scope, transaction
from db.settings import settings
from worker.envelope import JOB_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.orm import Session

    from db.jobs import Claim, Settled

log = structlog.get_logger()


class Task(celery.Task[Any, Any]):
    """Binds task, id and attempt to every log line of a run, times it and counts its statements.

    `attempt` counts from 1. Of a job it is how often it was claimed; of another message it is the message's, which
    starts over when it is sent again.
    """

    abstract = True
    Strategy = "worker.intake:strategy"
    Request = "worker.intake:Request"
    repeatable: bool = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task's function. What it raises goes on to Celery; an expected refusal and a retry say why here."""
        request = self.request
        if not request.called_directly and request.get(JOB_HEADER):
            return self._run_job(UUID(request.id))
        with bound_contextvars(task=self.name, task_id=request.id, attempt=request.retries + 1), _Run(self) as run:
            if request.called_directly:
                return self.run(*args, **kwargs)
            return run.call(self.run, args, kwargs)

    def _run_job(self, task_id: UUID) -> None:
        """Claim the job behind this message, run it, and write down how it ended."""
        lease_seconds = settings().job_lease_seconds
        with bound_contextvars(task=self.name, task_id=str(task_id)):
            claim = self._claim(task_id, lease_seconds)
            failpoints.reach("claimed")
            with bound_contextvars(attempt=claim.attempt), _Run(self, claim) as run:
                try:
                    with heartbeat(lease_seconds).beating(claim):
                        # Celery's own way of trying again would send a second message for this row.
                        run.call(getattr(self, "_orig_run", self.run), claim.args, claim.kwargs)
                        if not claim.completed:
                            run.complete()
                except BaseException as error:
                    run.leave_task()
                    if not run.settle(error):
                        raise

    def _claim(self, task_id: UUID, lease_seconds: float) -> Claim:
        """Claim a job, or raise Ignore, with which Celery acknowledges the message and forgets it."""
        try:
            with single_statement() as connection:
                claim = jobs.claim(connection, task_id, self.name, lease_seconds)
        except SQLAlchemyError as error:
            # Without the database there is nothing that this worker could do for it. The relay sends it again.
            log.warning("job.not_claimed", error=type(error).__name__)
            raise Ignore from None
        if claim is None:
            log.info("job.dropped")
            raise Ignore
        return claim


class _Run:
    """One run of a task: in its scope, and told of in one line when it is over."""

    def __init__(self, task: Task, claim: Claim | None = None) -> None:
        self._task = task
        self._claim = claim
        self._told: dict[str, Any] = {"outcome": "raised"}
        self._scoped = task_scope(task.name, repeatable=task.repeatable)

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        self._scope = self._scoped.__enter__()
        self._scope.claim = self._claim
        self._inside = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.leave_task()
        if self._claim is None:
            self._told = _plainly_told(error)
        seconds = round(time.perf_counter() - self._started, 4)
        log.info("task.ran", **self._told, seconds=seconds, statements=self._scope.statements)

    def call(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the task's function with what came as JSON, as its annotations want it. Raises InvalidJob."""
        known = jobs.declared(self._task.name)
        # SQL has checked all that there is to check of a job whose annotations are JSON's types.
        checked = known is None or (known.plain and self._claim is not None)
        answer = function(*args, **kwargs) if checked or known is None else function(**known.bind(args, kwargs))
        self._told = {"outcome": "done"}
        return answer

    def leave_task(self) -> None:
        """End the task's scope: transactions from here on are not the task's."""
        if self._inside:
            self._inside = False
            self._scoped.__exit__(None, None, None)

    def complete(self) -> None:
        """Complete a job whose task did not: a repeatable one, or one that needed no transaction."""
        self.leave_task()
        with task_scope(self._task.name, repeatable=False) as scope:
            scope.claim = self._claim
            with transaction():
                """Its commit is all there is to do."""

    def settle(self, error: BaseException) -> bool:
        """Write down how a job ended that did not complete; whether that is all there is to say.

        Otherwise the error goes on to Celery: of what is dead or ends the process.

        Raises:
            Retry: it runs again later. Celery tells Flower so, and sends nothing.
            Ignore: it is not wanted any more, or is another's.
        """
        assert self._claim is not None
        claim = self._claim
        outcome, settled = _write_down(claim, error)
        self._told = {"outcome": outcome, "kind": type(error).__name__}
        if isinstance(error, HarborError):
            self._told["error"] = str(error)
        if settled is None and claim.completed and isinstance(error, Exception):
            # What follows the commit cannot undo it.
            log.error("job.failed_after_it_was_done", exc_info=error)
            return True
        if _asked_to_stop(error):
            return False
        if settled is None or settled.state == jobs.JobState.CANCELLED:
            raise Ignore from None
        if settled.state == jobs.JobState.READY:
            if outcome == "failed":
                # The traceback of the first attempt, and of the last, will do.
                told = {"kind": type(error).__name__, "again_in_seconds": round(settled.wait_seconds, 1)}
                log.warning("job.failed", **told, exc_info=error if claim.attempt == 1 else None)
            when: Any = settled.wait_seconds
            raise Retry(str(error), error if isinstance(error, Exception) else None, when) from None
        told = {"kind": type(error).__name__, "attempts": claim.attempt}
        # What a refusal says has been thought about; of anything else the traceback is needed.
        log.error("job.dead", **told, exc_info=None if isinstance(error, HarborError) else error)
        return False


def _write_down(claim: Claim, error: BaseException) -> tuple[str, Settled | None]:
    """End an attempt in the database, and return what to call that."""
    try:
        with transaction() as session:
            outcome, settled = _settle(session, claim, error)
            if settled is None and claim.completed and isinstance(error, Exception):
                jobs.note_failure(session, claim, f"{type(error).__name__}: {error}")
    except SQLAlchemyError as broken:
        # Its lease runs out, and the relay sends it again.
        log.warning("job.not_settled", error=type(broken).__name__)
        return "unsettled", None
    if settled is None:
        outcome = "done" if claim.completed else "lost"
    return outcome, settled


def _settle(  # noqa: PLR0911 - a line per ending
    session: Session, claim: Claim, error: BaseException
) -> tuple[str, Settled | None]:
    """End an attempt as its error says, and return what to call that."""
    if isinstance(error, (JobLeaseLost, Interrupted)) and claim.stop is not JobCancelled:
        return "lost", None
    if isinstance(error, (JobCancelled, Interrupted)):
        return "cancelled", jobs.cancel_claimed(session, claim, "it was asked to stop")
    if isinstance(error, jobs.Snooze):
        return "snoozed", jobs.snooze(session, claim, error.delay_seconds)
    if isinstance(error, jobs.Discard):
        return "discarded", jobs.cancel_claimed(session, claim, error.reason, "discarded")
    if _asked_to_stop(error):
        return "given back", jobs.give_back(session, claim)
    if isinstance(error, HarborError) and not error.transient:
        return "refused", jobs.bury(session, claim, f"{type(error).__name__}: {error}")
    return "failed", jobs.retry(session, claim, f"{type(error).__name__}: {error}")


def _asked_to_stop(error: BaseException) -> bool:
    """Whether this process ends because its worker does. A task that calls sys.exit() merely fails."""
    return isinstance(error, SystemExit) and bool(terminate_handler_fired())


def _plainly_told(error: BaseException | None) -> dict[str, Any]:
    """Say how a message without a row ended."""
    if error is None:
        return {"outcome": "done"}
    if isinstance(error, HarborError):
        return {"outcome": "refused", "kind": type(error).__name__, "error": str(error)}
    if isinstance(error, Retry):
        return {"outcome": "retried", "kind": type(error.exc).__name__}
    return {"outcome": "raised"}
