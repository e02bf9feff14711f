"""The ledger beside a few dictionaries: the same happens to both in any order, and both must say the same.

Workers here are claims in a list: one that crashes is forgotten, one that freezes is not, and comes back later to
commit what is not its job any more. Redis is a list of messages that may lose any of them and deliver any twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from db import jobs
from db.errors import JobCancelled, JobLeaseLost
from db.session import transaction
from tests.db.ledger_model import FLYING, LIVE, Expected, refusal
from tests.db.sql import change, rows
from tests.ledger import act, attempt, claim, lease, make_type, put, request_cancel, sweep

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sqlalchemy.orm import Session

TASK: Final = "sample.count"
_ANSWERS: Final[dict[str, Callable[[Session, jobs.Claim], jobs.Settled | None]]] = {
    "ready": jobs.give_back,
    "snoozed": lambda session, taken: jobs.snooze(session, taken, 1_000),
    "failed": lambda session, taken: jobs.retry(session, taken, "it failed"),
    "dead": lambda session, taken: jobs.bury(session, taken, "for good"),
    "cancelled": lambda session, taken: jobs.cancel_claimed(session, taken, "nothing to do"),
}

some = st.integers(0, 50)
with_jobs = precondition(lambda machine: machine.jobs)
with_workers = precondition(lambda machine: machine.workers)


class Ledger(RuleBasedStateMachine):
    """PostgreSQL beside the dictionaries."""

    def __init__(self) -> None:
        super().__init__()
        self.jobs: dict[UUID, Expected] = {}
        self.messages: list[UUID] = []
        self.workers: list[jobs.Claim] = []

    @initialize()
    def open(self) -> None:
        change("DELETE FROM jobs")
        change("DELETE FROM operator_actions")
        make_type(TASK)

    def worker(self, place: int) -> tuple[jobs.Claim, Expected, bool]:
        """Any worker, the job that it has claimed, and whether that is still its own.

        Every other time one whose job is another's, since what is wrong with those is seldom seen.
        """
        late = [one for one in self.workers if self.jobs[one.task_id].token != one.token]
        workers = late if late and place % 2 else self.workers
        taken = workers[place % len(workers)]
        job = self.jobs[taken.task_id]
        return taken, job, job.token == taken.token

    def may_go(self, job: Expected) -> bool:
        """Whether it is its turn among the jobs of its ordering key."""
        same = [other for other in self.jobs.values() if other.key == job.key and other.state in LIVE]
        flying = any(other.state in FLYING for other in same)
        return job.key is None or (not flying and job.place == min(other.place for other in same))

    # ---- who puts jobs in, and takes them back -----------------------------------------------------------------------

    @rule(key=st.sampled_from([None, None, "a", "b"]), max_attempts=st.integers(1, 3))
    def enqueue(self, key: str | None, max_attempts: int) -> None:
        task_id = put(TASK, ordering_key=key, max_attempts=max_attempts)
        self.jobs[task_id] = Expected(len(self.jobs), key, max_attempts)

    @rule(key=st.sampled_from([None, "a"]), taken_over=st.booleans())
    def enqueue_and_start(self, key: str | None, taken_over: bool) -> None:
        self.enqueue(key, 3)
        self.relay()
        if self.messages:
            self.claim(-1, acknowledged=True)
        if self.workers and taken_over:
            self.freeze_and_be_taken_over(-1)

    @rule(key=st.sampled_from([None, "a"]))
    def enqueue_and_roll_back_to_a_savepoint(self, key: str | None) -> None:
        with transaction() as session:
            savepoint = session.begin_nested()
            jobs.enqueue(session, TASK, ordering_key=key)
            savepoint.rollback()

    @with_jobs
    @rule(place=some)
    def cancel(self, place: int) -> None:
        task_id = list(self.jobs)[place % len(self.jobs)]
        job = self.jobs[task_id]
        if job.state in LIVE:
            job.stop = True
            if job.state != "running":
                job.leave("cancelled")

        assert request_cancel(task_id) == job.state

    @with_jobs
    @rule(place=some)
    def retry_as_an_operator(self, place: int) -> None:
        ended = [one for one, job in self.jobs.items() if job.state in {"dead", "cancelled"}]
        if ended:
            task_id = ended[place % len(ended)]
            change(_RETRY, task_id=task_id)
            job = self.jobs[task_id]
            job.leave("ready", due=True)
            job.attempt, job.stop = 0, False

    # ---- relays, Redis and time --------------------------------------------------------------------------------------

    @rule()
    def relay(self) -> None:
        expected = {one for one, job in self.jobs.items() if job.state == "ready" and job.due and self.may_go(job)}

        published = [message.task_id for message in lease()]

        assert len(set(published)) == len(published)
        assert set(published) == expected
        for task_id in published:
            self.jobs[task_id].state, self.jobs[task_id].due = "published", False
        self.messages += published

    @precondition(lambda machine: machine.messages)
    @rule(place=some)
    def lose_a_message(self, place: int) -> None:
        self.messages.pop(place % len(self.messages))

    @with_jobs
    @rule()
    def let_everything_be_due(self) -> None:
        change("UPDATE jobs SET available_at = statement_timestamp() - interval '1 hour'")
        for job in self.jobs.values():
            job.due = True

    @rule()
    def sweep(self) -> None:
        overdue = [job for job in self.jobs.values() if job.state == "published" and job.due]
        lost = [job for job in self.jobs.values() if job.state == "running" and job.over]
        for job in overdue:
            job.state = "ready"
        for job in lost:
            job.leave(job.state if job.end_if_it_must() else "ready", due=False)

        swept = sweep()

        assert (swept.never_started, swept.lease_expired) == (len(overdue), len(lost))
        self.wait_out_the_jitter()

    def wait_out_the_jitter(self) -> None:
        """Let a job that waits a random time wait an hour: the same steps must have the same end."""
        for task_id, job in self.jobs.items():
            if job.state == "ready" and not job.due:
                change(_LATER, task_id=task_id)

    # ---- workers -----------------------------------------------------------------------------------------------------

    @precondition(lambda machine: machine.messages)
    @rule(place=some, acknowledged=st.booleans())
    def claim(self, place: int, acknowledged: bool) -> None:
        task_id = self.messages[place % len(self.messages)]
        if acknowledged:
            self.messages.remove(task_id)
        job = self.jobs[task_id]
        free = job.state == "published" or (job.state == "running" and job.over)

        taken = claim(task_id, TASK)

        if not free or job.end_if_it_must():
            assert taken is None
            if free:
                job.leave(job.state)
        else:
            assert taken is not None
            job.leave("running")
            job.attempt, job.token = job.attempt + 1, taken.token
            self.workers.append(taken)

    @with_workers
    @rule(place=some)
    def crash(self, place: int) -> None:
        taken, _, _ = self.worker(place)
        self.workers.remove(taken)
        self.let_its_lease_run_out(taken)

    @with_workers
    @rule(place=some)
    def freeze(self, place: int) -> None:
        self.let_its_lease_run_out(self.worker(place)[0])

    @with_workers
    @rule(place=some)
    def freeze_and_be_taken_over(self, place: int) -> None:
        taken = self.workers[place % len(self.workers)]
        job = self.jobs[taken.task_id]
        if job.token == taken.token:
            self.let_its_lease_run_out(taken)
            self.messages.insert(0, taken.task_id)
            self.claim(0, acknowledged=True)
            assert job.token != taken.token

    def let_its_lease_run_out(self, taken: jobs.Claim) -> None:
        change("UPDATE jobs SET lease_until = statement_timestamp() WHERE lease_token = :token", token=taken.token)
        if self.jobs[taken.task_id].token == taken.token:
            self.jobs[taken.task_id].over = True

    @with_workers
    @rule(place=some)
    def beat(self, place: int) -> None:
        taken, job, mine = self.worker(place)
        told = answer(lambda session: taken.extend(session, 30))
        assert told is refusal(job, mine=mine)
        if told is None:
            job.over = False

    @with_workers
    @rule(place=some)
    def work_in_one_of_several_transactions(self, place: int) -> None:
        taken, job, mine = self.worker(place)
        with attempt(taken, repeatable=True):
            assert answer(lambda _: None) is refusal(job, mine=mine)

    @with_workers
    @rule(place=some)
    def finish(self, place: int) -> None:
        taken, job, mine = self.worker(place)
        with attempt(taken):
            told = answer(lambda session: act(session, taken.task_id))
        assert told is refusal(job, mine=mine)
        self.workers.remove(taken)
        if told is None:
            job.leave("done")
            job.effects += 1
        elif told is JobCancelled:
            self.settle(taken, "cancelled")

    @with_workers
    @rule(place=some, how=st.sampled_from(sorted(_ANSWERS)))
    def end_otherwise(self, place: int, how: str) -> None:
        taken = self.worker(place)[0]
        self.workers.remove(taken)
        self.settle(taken, how)

    def settle(self, taken: jobs.Claim, how: str) -> None:
        """Let a worker write down how its attempt ended, in both."""
        job = self.jobs[taken.task_id]
        with transaction() as session:
            told = _ANSWERS[how](session, taken)
        if job.token != taken.token:
            assert told is None
            return
        if how in {"dead", "cancelled"}:
            job.leave(how)
        elif job.end_if_it_must(counted=how == "failed"):
            job.leave(job.state)
        else:
            job.leave("ready", due=how == "ready")
            self.wait_out_the_jitter()
        job.attempt -= how in {"ready", "snoozed"}
        assert told is not None
        assert told.state == job.state

    # ---- what must be so after each ----------------------------------------------------------------------------------

    @invariant()
    def every_job_is_as_it_must_be_and_none_is_lost(self) -> None:
        found = {task_id: told for task_id, *told in rows(_JOBS)}
        expected = {
            task_id: [job.state, job.attempt, job.token, job.stop, job.effects] for task_id, job in self.jobs.items()
        }

        assert found == expected
        assert all(job.effects == (job.state == "done") for job in self.jobs.values())

    @invariant()
    def one_job_of_a_key_is_in_flight(self) -> None:
        flying = [job.key for job in self.jobs.values() if job.key is not None and job.state in FLYING]

        assert len(set(flying)) == len(flying)

    def teardown(self) -> None:
        """Whatever happened, good workers bring every job to its end, and those of a key in turn."""
        self.workers.clear()
        change("UPDATE jobs SET lease_until = statement_timestamp() WHERE state = 'running'")
        for job in self.jobs.values():
            job.over = job.state == "running"
        order: dict[str | None, list[int]] = {}
        for _ in range(len(self.jobs) + 1):
            self.let_everything_be_due()
            self.sweep()
            self.let_everything_be_due()
            self.messages.clear()
            self.relay()
            while self.messages:
                job = self.jobs[self.messages[0]]
                self.claim(0, acknowledged=True)
                if self.workers:
                    order.setdefault(job.key, []).append(job.place)
                    self.finish(0)
        assert [one for one, job in self.jobs.items() if job.state in LIVE] == []
        for key, places in order.items():
            assert key is None or places == sorted(places)
        self.every_job_is_as_it_must_be_and_none_is_lost()


def answer(do: Callable[[Session], Any]) -> type[Exception] | None:
    """Do something in a transaction; which refusal that met."""
    try:
        with transaction() as session:
            do(session)
    except (JobCancelled, JobLeaseLost) as refused:
        return type(refused)
    return None


_RETRY: Final = """
UPDATE jobs SET state = 'ready', attempt = 0, cancel_requested = false, available_at = statement_timestamp()
 WHERE task_id = :task_id"""
_LATER: Final = "UPDATE jobs SET available_at = statement_timestamp() + interval '1 hour' WHERE task_id = :task_id"
_JOBS: Final = """
SELECT task_id, state, attempt, lease_token, cancel_requested,
       (SELECT count(*) FROM operator_actions WHERE action = 'effect' AND subject = task_id::text)
  FROM jobs"""
