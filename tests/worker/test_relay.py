"""The relay's process: it delivers, it outlives its broker and its database, and a batch in doubt is sent again."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import kombu.exceptions
import pytest
import redis.exceptions
from sqlalchemy import text

from db import jobs
from db.jobs import publish
from tests import ledger
from tests.broker import Broker, own_broker
from tests.db.sql import change, value
from tests.processes import Process, process, python, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECONDS = 20
_IN_A_BATCH: Any = vars(kombu.exceptions)["BatchPublishError"]  # The stubs do not know it.


@pytest.fixture
def relay(environ: dict[str, str], tmp_path: Path) -> Iterator[tuple[Process, Broker]]:
    """A relay of this test's own database, with a broker of its own."""
    ledger.make_type()
    told = {"HARBOR_ENV": "prod", "HARBOR_JOB_REPUBLISH_SECONDS": "1"}
    with own_broker(environ) as broker:
        command = python("-m", "cli", "relay", "--alive", str(tmp_path / "alive"))
        with process(command, broker.environ({**os.environ, **environ, **told}), tmp_path / "relay.log") as running:
            wait_until(lambda: running.events("relay.started"), SECONDS, running)
            yield running, broker


def test_it_delivers_what_is_due_and_ends_cleanly_on_sigterm(relay: tuple[Process, Broker], tmp_path: Path) -> None:
    running, broker = relay
    ids = [ledger.put() for _ in range(3)]

    wait_until(lambda: broker.lengths() == {"default": 3}, SECONDS, running)
    assert {ledger.state(task_id) for task_id in ids} == {"published"}
    wait_until((tmp_path / "alive").exists, SECONDS, running)
    assert running.terminate() == 0
    assert running.events("relay.stopped")


def test_what_the_broker_lost_is_sent_again(relay: tuple[Process, Broker]) -> None:
    running, broker = relay
    task_id = ledger.put()
    wait_until(lambda: broker.lengths() == {"default": 1}, SECONDS, running)

    broker.client.flushdb()

    wait_until(lambda: broker.lengths() == {"default": 1}, SECONDS, running)
    assert ledger.row(task_id).publish_count >= 2
    assert ledger.row(task_id).attempt == 0


def test_what_waits_in_the_broker_is_late_and_not_lost(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import relay as module

    ledger.make_type()
    with own_broker(environ) as broker:
        from worker.celery import app

        relay = module.Relay()
        connection = app.connection_for_write(url=broker.url)
        monkeypatch.setattr(app, "connection_for_write", lambda: connection)
        task_id = ledger.put()
        relay._turn()
        ledger.pass_time(task_id, timedelta(hours=1))
        kept = relay._spared()
        relay._sweep()
        late = ledger.state(task_id)

        broker.client.flushdb()
        # What a worker that is gone has left behind says nothing about this job.
        broker.client.hset("harbor:unacked:bulk", "tag", "message")
        lost = relay._spared()
        relay._sweep()

    assert (kept, late) == (["default"], "published")
    assert (lost, ledger.state(task_id)) == ([], "ready")


def test_it_outlives_dropped_connections_to_the_broker_and_the_database(relay: tuple[Process, Broker]) -> None:
    running, broker = relay
    ledger.put()
    wait_until(lambda: broker.lengths() == {"default": 1}, SECONDS, running)

    broker.client.client_kill_filter(_type="normal", skipme=True)
    terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'harbor-relay'"
    assert value(terminate) == 1
    ledger.put()

    wait_until(lambda: broker.lengths().get("default", 0) >= 2, SECONDS, running)
    assert running.runs()


def test_a_table_that_is_missing_for_a_moment_does_not_end_it(relay: tuple[Process, Broker]) -> None:
    running, broker = relay
    change("ALTER TABLE queue_control RENAME TO away")
    wait_until(lambda: running.events("relay.database_failed"), SECONDS, running)
    change("ALTER TABLE away RENAME TO queue_control")

    ledger.put()

    wait_until(lambda: broker.lengths() == {"default": 1}, SECONDS, running)
    assert running.events("relay.resumed")


@pytest.mark.parametrize("error", [redis.exceptions.ConnectionError("gone"), _IN_A_BATCH("gone")])
def test_a_batch_in_doubt_is_neither_counted_nor_lost(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    from worker import relay as module

    class Failing:
        """A producer whose broker goes away in the middle of a batch."""

        def batch(self, **_: Any) -> Failing:
            return self

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None:
            raise error

        def publish(self, **_: Any) -> None: ...

    ledger.make_type()
    task_id = ledger.put()
    relay = module.Relay()
    relay._sweep_at = float("inf")
    monkeypatch.setattr(relay, "_connected", Failing)

    pause_seconds = relay._turn()

    assert 0 < pause_seconds <= 10
    row = ledger.row(task_id)
    assert (row.state, row.attempt, row.publish_count) == ("published", 0, 0)
    assert relay._breaker.closed is False


def test_a_sweep_that_cannot_be_done_keeps_no_job_from_being_published(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from worker import relay as module

    ledger.make_type()
    task_id = ledger.put()
    relay = module.Relay()
    relay._sweep_at = 0
    published: list[object] = []
    monkeypatch.setattr(relay, "_connected", object)
    monkeypatch.setattr(relay, "_publish", lambda _producer, messages: published.extend(messages))
    monkeypatch.setattr(jobs, "SWEEPS", {"never_started": text("SELECT 1/0"), "unblocked": text("SELECT 1/0")})
    monkeypatch.setattr(publish, "SWEEPS", jobs.SWEEPS)

    relay._turn()

    assert len(published) == 1
    assert ledger.state(task_id) == "published"
    assert relay._sweep_at > 0


def test_without_a_broker_nothing_is_leased(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from worker import relay as module

    ledger.make_type()
    task_id = ledger.put()
    relay = module.Relay()

    def away() -> None:
        raise redis.exceptions.ConnectionError("refused")

    monkeypatch.setattr(relay, "_connected", away)
    for _ in range(3):
        assert relay._turn() > 0

    assert ledger.state(task_id) == "ready"


def test_the_pause_of_a_breaker_grows_to_ten_seconds_and_is_never_the_same_for_all() -> None:
    from worker.relay import Breaker

    breakers = [Breaker() for _ in range(200)]
    first = [breaker.failed() for breaker in breakers]
    for breaker in breakers:
        for _ in range(20):
            pause_seconds = breaker.failed()
            assert 0.1 <= pause_seconds <= 10
    breakers[0].worked()

    assert max(first) <= 0.5
    assert len(set(first)) == len(first)
    assert breakers[0].closed
