"""No look at jobs reads the whole ledger, as planned for its values and as a prepared statement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import text

from db.jobs import JobFilter, JobState, read, stats
from db.session import transaction
from tests.db.plans import CUSTOM, GENERIC, explained
from tests.ledger import fill, make_type

if TYPE_CHECKING:
    from collections.abc import Callable

MANY = 100_000


@pytest.fixture
def _long(environ: dict[str, str]) -> None:
    make_type()
    fill(MANY, "done", ended_ago="2 h")
    fill(1_000, "dead", ended_ago="2 h", attempts=1)
    fill(20_000, "ready")
    fill(100, "published")
    with transaction() as session:
        session.execute(text("ANALYZE jobs, job_attempts"))


LOOKS: dict[str, Callable[[Any], object]] = {
    "stats": stats.stats,
    "a page": lambda session: read.page(session, limit=50),
    "a page of dead jobs": lambda session: read.page(session, JobFilter(states=(JobState.DEAD,)), limit=50),
    "a page of published jobs": lambda session: read.page(session, JobFilter(states=(JobState.PUBLISHED,)), limit=50),
    "one job": lambda session: read.show(session, read.page(session, limit=1)[0].task_id),
}


@pytest.mark.usefixtures("_long")
def test_no_look_reads_the_whole_ledger() -> None:
    for name, look in LOOKS.items():
        for mode in (CUSTOM, GENERIC):
            with transaction() as session:
                with explained(session, mode) as plans:
                    look(session)
                session.rollback()
            assert [plan.statement for plan in plans if "jobs" in plan.read_whole] == [], name
            assert sum(plan.buffers for plan in plans) < 16_000, name


@pytest.mark.usefixtures("_long")
def test_a_count_of_the_ledger_would_read_all_of_it() -> None:
    with transaction() as session, explained(session, CUSTOM) as plans:
        session.execute(text("SELECT count(*) FROM jobs WHERE queue = 'default'"))

    assert any("jobs" in plan.read_whole for plan in plans)
