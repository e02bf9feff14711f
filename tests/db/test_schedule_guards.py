"""What keeps a tick from running twice, each guard by itself, and what happens without any."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, InternalError

from db import schedule
from db.session import transaction
from tests.db.sql import change, eventually, value
from tests.schedules import at, make

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

DUE = at(10)
SOON = 1.0

ticking: Any = import_module("db.schedule.tick")


@pytest.fixture
def counts(database: None) -> str:
    """A schedule whose first tick is at DUE."""
    return make()


@pytest.fixture
def without_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beats that do not lock the schedule whose ticks they decide."""
    monkeypatch.setattr(ticking, "_LOCK_IF_FREE", text(ticking._LOCK.replace("FOR NO KEY UPDATE OF s", "")))


@pytest.fixture
def without_key(database: None) -> Iterator[None]:
    """A database that takes the same tick twice."""
    change("ALTER TABLE schedule_ticks DROP CONSTRAINT pk_schedule_ticks")
    yield
    change("DELETE FROM schedule_ticks")
    change("ALTER TABLE schedule_ticks ADD CONSTRAINT pk_schedule_ticks PRIMARY KEY (schedule, due_at)")


@pytest.fixture
def meeting(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two Beats that both have decided what is due before either writes it, if their guards let them."""
    both = threading.Barrier(2)
    real = ticking._enqueue

    def met(session: Session, *told: Any) -> Any:
        with suppress(threading.BrokenBarrierError):
            both.wait(SOON)
        return real(session, *told)

    monkeypatch.setattr(ticking, "_enqueue", met)
    yield
    both.abort()


def tick(name: str) -> str:
    """Let a Beat decide what is due; how that ended."""
    try:
        with transaction() as session:
            ticked = schedule.tick(session, name, DUE)
    except IntegrityError:
        return "refused"
    return "passed over" if ticked is None else f"{len(ticked.task_ids)} jobs"


def two_beats(name: str) -> Counter[str]:
    with ThreadPoolExecutor(2) as threads:
        return Counter(threads.map(tick, [name, name]))


def written() -> tuple[int, int]:
    """How many ticks and how many jobs there are."""
    return value("SELECT count(*) FROM schedule_ticks"), value("SELECT count(*) FROM jobs")


@pytest.mark.usefixtures("meeting")
def test_the_lock_lets_one_beat_decide_and_the_other_pass_by(counts: str) -> None:
    assert two_beats(counts) == {"1 jobs": 1, "passed over": 1}
    assert written() == (1, 1)


@pytest.mark.usefixtures("without_lock", "meeting")
def test_the_key_alone_lets_one_of_two_beats_commit_and_rolls_the_other_back_with_its_job(counts: str) -> None:
    assert two_beats(counts) == {"1 jobs": 1, "refused": 1}
    assert written() == (1, 1)


@pytest.mark.usefixtures("without_lock", "without_key", "meeting")
def test_without_lock_and_key_the_tick_runs_twice(counts: str) -> None:
    assert two_beats(counts) == {"1 jobs": 2}
    assert written() == (2, 2)


def test_a_beat_that_is_frozen_in_the_middle_of_a_tick_does_not_stop_the_others(
    counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticking, "FROZEN_MS", 200)

    with pytest.raises(InternalError, match="idle-in-transaction timeout"):
        _tick_and_freeze(counts)

    assert written() == (1, 1)


def test_without_the_limit_a_frozen_beat_stops_the_others_until_it_ends(
    counts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ticking, "FROZEN_MS", 0)
    later = time.monotonic() + SOON

    with transaction() as frozen:
        schedule.tick(frozen, counts, DUE)
        while time.monotonic() < later:
            assert tick(counts) == "passed over"

    assert written() == (1, 1)


def _tick_and_freeze(name: str) -> None:
    with transaction() as session:
        schedule.tick(session, name, DUE)
        eventually(lambda: tick(name) == "1 jobs")
