"""A heartbeat keeps a job its worker's for as long as it runs, and stops it when it is not ours any more."""

from __future__ import annotations

import json
import os
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import OperationalError

from db.errors import JobCancelled, JobLeaseLost
from db.jobs import heartbeat as beats
from db.jobs.heartbeat import Heartbeat, Interrupted
from db.session import transaction
from tests.db.sql import change, eventually, locked, somebody_waits_for_a_lock, value
from tests.ledger import (
    act,
    attempt,
    before_commit,
    claimed,
    effects,
    elsewhere,
    make_type,
    request_cancel,
    row,
    run_out,
    state,
    sweep,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from db.jobs import Claim

QUICK_SECONDS = 0.15
"""Of a heartbeat's lease here, so that it beats each 50 ms. The claims' own leases are longer where they must last."""
_DEADLINE_SECONDS = 20


@pytest.fixture
def beating(database: None) -> Iterator[Heartbeat]:
    """A heartbeat of this test's own."""
    make_type()
    started = Heartbeat(QUICK_SECONDS)
    yield started
    started.end()


def interrupted(taken: Claim, started: Heartbeat) -> type[BaseException] | None:
    """Run a task that would never end by itself; what stopped it."""
    pause = threading.Event()
    deadline = threading.Event()
    threading.Timer(_DEADLINE_SECONDS, deadline.set).start()
    try:
        with started.beating(taken):
            while not deadline.is_set():
                pause.wait(0.01)
    except Interrupted:
        return taken.stop
    return None


@contextmanager
def soon(do: object) -> Iterator[None]:
    """Let another thread do something a moment after the block began, when the heartbeat has beaten at least once."""
    thread = threading.Timer(3 * QUICK_SECONDS, do)  # type: ignore[arg-type]
    thread.start()
    try:
        yield
    finally:
        thread.join()


# ---- it keeps the lease ----------------------------------------------------------------------------------------------


def test_it_extends_the_lease_of_a_job_that_runs(beating: Heartbeat) -> None:
    taken = claimed()
    run_out(taken)
    over = row(taken.task_id).lease_until

    with beating.beating(taken):
        eventually(lambda: row(taken.task_id).lease_until > over)
        later = row(taken.task_id).lease_until
        eventually(lambda: row(taken.task_id).lease_until > later)

    assert taken.stop is None


def test_with_it_a_job_longer_than_its_lease_is_not_swept_and_without_it_it_is(beating: Heartbeat) -> None:
    taken = claimed(lease_seconds=QUICK_SECONDS)
    pause = threading.Event()
    with beating.beating(taken):
        for _ in range(10):
            pause.wait(QUICK_SECONDS / 3)
            row(taken.task_id)
        kept = state(taken.task_id)

    eventually(lambda: sweep().lease_expired == 1)
    assert (kept, state(taken.task_id)) == ("running", "ready")


def test_it_beats_for_all_jobs_of_its_process(beating: Heartbeat) -> None:
    both = [claimed(), claimed()]
    for taken in both:
        run_out(taken)

    with beating.beating(both[0]), beating.beating(both[1]):
        lasting = "SELECT count(*) FROM jobs WHERE lease_until > statement_timestamp()"
        eventually(lambda: value(lasting) == len(both))


def test_nobody_s_lease_is_extended_after_the_block(beating: Heartbeat) -> None:
    taken, other = claimed(), claimed()
    with beating.beating(taken):
        pass
    run_out(taken)
    run_out(other)
    with beating.beating(other):
        before = row(other.task_id).lease_until
        eventually(lambda: row(other.task_id).lease_until > before)

    assert sweep().lease_expired == 1
    assert state(taken.task_id) == "ready"


# ---- it does not take its own worker's lock for a loss ---------------------------------------------------------------


def test_a_row_that_is_locked_is_still_ours(beating: Heartbeat, capfd: pytest.CaptureFixture[str]) -> None:
    taken = claimed()
    with beating.beating(taken):
        with locked("SELECT 1 FROM jobs WHERE id = :id FOR NO KEY UPDATE", id=taken.job_id):
            eventually(somebody_waits_for_a_lock)
            eventually(lambda: not somebody_waits_for_a_lock())
        run_out(taken)
        over = row(taken.task_id).lease_until
        eventually(lambda: row(taken.task_id).lease_until > over)

    assert taken.stop is None
    assert "job.beat_failed" not in capfd.readouterr().err


@pytest.mark.parametrize("knows", [True, False], ids=["as it is", "without looking whether it is completed"])
def test_a_job_that_commits_while_it_beats_is_not_stopped(
    beating: Heartbeat, monkeypatch: pytest.MonkeyPatch, knows: bool
) -> None:
    taken = claimed()
    lost = threading.Event()
    stop = beating._stop

    def found_lost(*told: Any) -> None:
        if not knows:
            taken.completed = False
        stop(*told)
        lost.set()

    monkeypatch.setattr(beating, "_stop", found_lost)
    with suppress(Interrupted), beating.beating(taken):
        # The heartbeat waits for the row that this very transaction has locked, and finds the job over afterwards.
        wait = before_commit(lambda _: elsewhere(lambda: eventually(somebody_waits_for_a_lock)))
        with attempt(taken), wait, transaction() as session:
            act(session, taken.task_id)
        assert lost.wait(_DEADLINE_SECONDS)

    assert (effects(taken.task_id), state(taken.task_id)) == (1, "done")
    assert taken.stop is (None if knows else JobLeaseLost)


# ---- it stops what should not go on ----------------------------------------------------------------------------------


def test_a_cancelled_job_is_stopped_in_the_middle(beating: Heartbeat) -> None:
    taken = claimed()

    with soon(lambda: request_cancel(taken.task_id)):
        assert interrupted(taken, beating) is JobCancelled

    assert state(taken.task_id) == "running"  # Its worker writes down how it ended.


def test_a_job_that_another_worker_took_over_is_stopped_in_the_middle(beating: Heartbeat) -> None:
    taken = claimed()

    def take_over() -> None:
        change("UPDATE jobs SET lease_token = gen_random_uuid() WHERE id = :id", id=taken.job_id)

    with soon(take_over):
        assert interrupted(taken, beating) is JobLeaseLost


def test_a_task_cannot_take_it_for_an_error_of_its_own(beating: Heartbeat) -> None:
    taken = claimed()
    request_cancel(taken.task_id)

    def stubborn() -> None:
        try:
            interrupted_here()
        except Exception:  # noqa: BLE001 - as careless tasks do
            raise AssertionError("a task swallowed it") from None

    def interrupted_here() -> None:
        pause = threading.Event()
        while True:
            pause.wait(0.01)

    with pytest.raises(Interrupted), beating.beating(taken):
        stubborn()


def test_only_the_thread_that_runs_the_job_is_stopped(beating: Heartbeat) -> None:
    cancelled, other = claimed(), claimed()
    answers: dict[str, type[BaseException] | None] = {}
    over = threading.Event()

    def run_other() -> None:
        with beating.beating(other):
            over.wait(_DEADLINE_SECONDS)
        answers["other"] = other.stop

    thread = threading.Thread(target=run_other)
    thread.start()
    request_cancel(cancelled.task_id)
    answers["cancelled"] = interrupted(cancelled, beating)
    over.set()
    thread.join()

    assert answers == {"cancelled": JobCancelled, "other": None}


def test_nobody_is_stopped_after_the_block(beating: Heartbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat tells the thread at the last moment, while that waits to leave the block."""
    taken = claimed()
    request_cancel(taken.task_id)
    told = threading.Event()
    raise_in = beats._raise_in

    def late(thread_id: int, kind: type[BaseException]) -> None:
        told.set()
        # The lock is the heartbeat's here; the thread has reached the end of its block and waits for it.
        leaving.wait(_DEADLINE_SECONDS)
        raise_in(thread_id, kind)

    leaving = threading.Event()
    monkeypatch.setattr(beats, "_raise_in", late)
    with suppress(Interrupted), beating.beating(taken):
        assert told.wait(_DEADLINE_SECONDS)
        leaving.set()
    # Whatever was still on its way would arrive at one of these.
    for _ in range(1_000):
        threading.get_ident()

    assert taken.stop is JobCancelled
    assert beating._claims == {}


def test_a_job_that_was_stopped_is_forgotten(beating: Heartbeat) -> None:
    taken = claimed()
    request_cancel(taken.task_id)

    assert interrupted(taken, beating) is JobCancelled

    assert beating._claims == {}


# ---- it goes on ------------------------------------------------------------------------------------------------------


def test_it_survives_errors_of_the_database(beating: Heartbeat, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = claimed()
    failures = 0
    extend = type(taken).extend

    def fail_at_first(self: Claim, session: object, lease_seconds: float) -> None:
        nonlocal failures
        failures += 1
        if failures <= 2:
            raise OperationalError("UPDATE jobs", {}, ConnectionError("gone"))
        extend(self, session, lease_seconds)  # type: ignore[arg-type]

    monkeypatch.setattr(type(taken), "extend", fail_at_first)
    run_out(taken)
    over = row(taken.task_id).lease_until
    with beating.beating(taken):
        eventually(lambda: row(taken.task_id).lease_until > over)

    assert failures > 2
    assert taken.stop is None


def test_it_survives_a_server_that_ends_its_connections(beating: Heartbeat) -> None:
    taken = claimed()
    with beating.beating(taken):
        for _ in range(3):
            change(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            run_out(taken)
            lasting = "SELECT count(*) FROM jobs WHERE lease_until > statement_timestamp()"
            eventually(lambda: value(lasting) == 1)  # noqa: B023 - it is the same each time

    assert taken.stop is None


def test_a_forked_child_has_a_heartbeat_of_its_own(beating: Heartbeat) -> None:
    taken = claimed()
    run_out(taken)
    parent = beats.heartbeat(QUICK_SECONDS)
    parents_thread = [thread for thread in threading.enumerate() if thread.name == "harbor-heartbeat"]
    assert parents_thread
    reads, writes = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            mine = beats.heartbeat(QUICK_SECONDS)
            before = row(taken.task_id).lease_until
            with mine.beating(taken):
                eventually(lambda: row(taken.task_id).lease_until > before)
            told = {"own": mine is not parent, "again": beats.heartbeat(QUICK_SECONDS) is mine}
            os.write(writes, json.dumps(told).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads) as answer:
        told = json.loads(answer.read() or "null")
    os.waitpid(child, 0)
    parent.end()

    assert told == {"own": True, "again": True}
