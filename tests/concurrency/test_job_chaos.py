"""Everything that runs jobs is killed, frozen, cut off and emptied for a while, and each committed job has one effect.

HARBOR_TEST_SEED repeats a run's faults and what was enqueued, as far as the machine's own timing allows.
"""

from __future__ import annotations

import os
import random
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

import stack
from db import engine, schedule
from db.schedule import Declaration
from db.session import transaction
from db.settings import settings
from stack.binaries import URL_VARIABLES
from tests.concurrency.faults import Faults
from tests.concurrency.fleet import Fleet
from tests.concurrency.job_books import LIVE, broken, broken_ticks, describe, make_tables
from tests.concurrency.job_producers import Books, Producer, enqueue_slow, producing, want
from tests.concurrency.wires import Wire, wired
from tests.db.sql import change, rows, value
from tests.processes import program, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SECONDS = 20 * int(os.environ.get("HARBOR_TEST_ROUNDS", "1"))
_CONTROL_SECONDS = 3
_END_SECONDS = 120 + _SECONDS
_HURRY_SECONDS = 3
_PRODUCERS = 3
_FLUSHED = 40

# What failed or was lost several times waits ever longer; here as much time passes at once.
_HURRY = """
UPDATE jobs SET available_at = statement_timestamp()
 WHERE state IN ('ready', 'published') AND attempt + publish_count > 0 AND available_at > statement_timestamp()"""
_SCHEDULES = ("chaos-all", "chaos-latest")
_QUICK = {
    "HARBOR_ENV": "test",
    "HARBOR_JOB_LEASE_SECONDS": "2",
    "HARBOR_JOB_REPUBLISH_SECONDS": "2",
    "HARBOR_SLOW_QUERY_MS": "3600000",
    "REMAP_SIGTERM": "SIGQUIT",  # As `harbor worker` sets it.
}


@dataclass
class Place:
    """Servers of this test's own, with a wire to each, and what leads through them."""

    servers: stack.Stack
    database: Wire
    broker: Wire
    environ: dict[str, str]

    def faults(self, draw: random.Random, fleet: Fleet) -> Faults:
        return Faults(draw, fleet, self.servers, database=self.database, broker=self.broker)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    """A stack of its own, since its servers are restarted, and a database that all migrations have run in."""
    with pytest.MonkeyPatch.context() as patched, ExitStack() as entered:
        for name in URL_VARIABLES:
            patched.delenv(name, raising=False)
        servers = entered.enter_context(stack.running())
        database, broker, _ = (Wire(servers.environ[name]) for name in URL_VARIABLES)
        entered.enter_context(wired(database, broker))
        environ = {name: broker.through(database.through(url)) for name, url in servers.environ.items()} | _QUICK
        for name, told in environ.items():
            patched.setenv(name, told)
        settings.cache_clear()
        engine.dispose()
        upgraded = run([program("harbor"), "db", "upgrade"], {**os.environ})
        assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
        yield Place(servers, database, broker, environ)
        engine.dispose()
    settings.cache_clear()


@pytest.fixture
def seed() -> int:
    """What everything random is drawn from; shown when the test fails."""
    drawn = int(os.environ.get("HARBOR_TEST_SEED") or random.SystemRandom().randrange(1_000_000))
    print(f"HARBOR_TEST_SEED={drawn}")  # noqa: T201 - all that is printed here is shown when it fails
    return drawn


@contextmanager
def fleet_of(place: Place, logs: Path, **roles: int) -> Iterator[Fleet]:
    """A fleet for the length of the block."""
    with ExitStack() as entered:
        fleet = Fleet(place.environ, logs, entered)
        fleet.man(**roles)
        yield fleet


def test_each_committed_job_has_one_effect_and_each_tick_one_job_whatever_falls_over(
    place: Place, seed: int, tmp_path: Path
) -> None:
    make_tables()
    draw = random.Random(seed)
    producers = [Producer(number, random.Random(draw.random())) for number in range(_PRODUCERS)]
    trouble = threading.Event()
    books = Books()
    with fleet_of(place, tmp_path, worker=2, relay=2, beat=2) as fleet:
        _add_schedules()
        faults = place.faults(draw, fleet)
        enqueue_slow(books, count=8, pause_seconds=1.5)
        faults.fell_the_busy()
        try:
            with producing(seed, [each.produce for each in producers], trouble):
                faults.rage(_SECONDS, 1, trouble)
        finally:
            print(*faults.told, sep="\n")  # noqa: T201
        over_at = value("SELECT statement_timestamp()")
        _wait_for_ticks_after(over_at, fleet)
        for beat in fleet.of("beat"):
            beat.process.kill_group()
            fleet.members.remove(beat)
        _wait_for_the_end(faults)
        fleet.look_after()
    for each in producers:
        books.add(each.books)
    _tell(books)

    problems = [*broken(books), *(p for name in _SCHEDULES for p in broken_ticks(name, over_at)), *fleet.ended]
    assert not problems, "\n".join([f"HARBOR_TEST_SEED={seed}", *problems])
    _assert_it_was_busy(books)


def _add_schedules() -> None:
    with transaction() as session:
        for catch_up in ("all", "latest"):
            schedule.add(session, Declaration(f"chaos-{catch_up}", "chaos.tick", every_seconds=1, catch_up=catch_up))


def _wait_for_ticks_after(moment: object, fleet: Fleet) -> None:
    late = "SELECT count(*) FROM schedules WHERE name LIKE 'chaos-%' AND last_due_at >= :moment"
    watched = [beat.process for beat in fleet.of("beat")]
    wait_until(lambda: value(late, moment=moment) == len(_SCHEDULES), _END_SECONDS, *watched)


def _wait_for_the_end(faults: Faults) -> None:
    """Wait until no job is live."""
    began = time.monotonic()
    try:
        while value(LIVE):
            if not faults.broker.lengths():
                change(_HURRY)
            with suppress(AssertionError):
                wait_until(lambda: not value(LIVE), _HURRY_SECONDS)
            assert time.monotonic() < began + _END_SECONDS
    except AssertionError:
        live = rows("SELECT task_id FROM jobs WHERE state IN ('ready', 'published', 'running') ORDER BY id LIMIT 10")
        told = "\n".join(describe(task_id) for (task_id,) in live)
        raise AssertionError(f"{value(LIVE)} jobs never ended, such as\n{told}") from None
    print(f"everything was over {time.monotonic() - began:.1f} s after the last fault")  # noqa: T201


def _tell(books: Books) -> None:
    print(books)  # noqa: T201
    for statement in (
        "SELECT task, state, count(*), max(attempt), max(publish_count) FROM jobs GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT outcome, count(*) FROM job_attempts GROUP BY 1 ORDER BY 1",
        "SELECT schedule, skipped, count(*) FROM schedule_ticks GROUP BY 1, 2 ORDER BY 1, 2",
    ):
        print(*rows(statement), sep="\n")  # noqa: T201


def _assert_it_was_busy(books: Books) -> None:
    """A run in which little happened would prove little."""
    assert len(books.committed) > _SECONDS
    assert len(books.rolled_back) > _SECONDS / 4
    assert value("SELECT count(*) FROM job_attempts WHERE outcome = 'lost'") > 0
    assert value("SELECT count(*) FROM job_attempts WHERE outcome = 'failed'") > 0
    assert value("SELECT count(*) FROM jobs WHERE ordering_key IS NOT NULL") > _SECONDS / 4
    deduped = "SELECT count(*) FROM (SELECT FROM chaos_wanted GROUP BY task_id HAVING count(*) > 1) AS several"
    assert value(deduped) > 0


def test_messages_without_a_row_are_lost_or_run_twice_in_it(place: Place, seed: int, tmp_path: Path) -> None:
    make_tables()
    sender = Celery(broker=place.environ["HARBOR_BROKER_URL"], set_as_current=False)
    # What another service is told, so that its messages are found.
    sender.conf.broker_transport_options = {"global_keyprefix": "harbor:", "priority_steps": [0, 3, 6, 9]}
    sender.conf.task_default_queue = "default"
    trouble = threading.Event()
    numbers = iter(range(1_000_000))

    def send() -> str:
        key = f"plain-{next(numbers)}"
        with transaction() as session:
            want(session, key, None)
        with suppress(OperationalError):  # Redis did not answer, and the transaction is committed: it is lost.
            sender.send_task("chaos.effect", args=[key])
        return key

    def send_many() -> None:
        for _ in range(_FLUSHED):
            send()

    with fleet_of(place, tmp_path, worker=2) as fleet, sender:
        faults = place.faults(random.Random(seed), fleet)
        deck = ["kill_child", "flush", "stop_child", "drop_clients", "kill_worker"]
        with producing(seed, [send, send], trouble):
            faults.rage(_CONTROL_SECONDS, 0.5, trouble, deck)
        print(*faults.told, faults.flush_what_waits(send_many), sep="\n")  # noqa: T201
        last = send()
        wait_until(lambda: value("SELECT count(*) FROM chaos_effects WHERE key = :key", key=last), _END_SECONDS)
        for worker in fleet.of("worker"):
            worker.process.kill_group()
        waiting = sum(faults.broker.lengths().values()) + faults.broker.unacked()
    lost = value("SELECT count(*) FROM chaos_wanted WHERE key NOT IN (SELECT key FROM chaos_effects)") - waiting
    doubled = value("SELECT count(*) FROM (SELECT FROM chaos_effects GROUP BY key HAVING count(*) > 1) AS several")
    print(f"{value('SELECT count(*) FROM chaos_wanted')} sent, {lost} lost, {doubled} run twice")  # noqa: T201

    assert lost + doubled > 0
