"""The books of the job chaos see each single thing that may be wrong."""

from __future__ import annotations

import pytest

from db import jobs
from db.session import transaction
from tests import ledger
from tests.concurrency.job_books import broken, make_tables
from tests.concurrency.job_producers import Books, want
from tests.db.sql import change

pytestmark = pytest.mark.usefixtures("environ")

_EFFECT = """
INSERT INTO chaos_effects (key, task_id, begun_at, ended_at)
SELECT key, task_id, clock_timestamp(), clock_timestamp() FROM chaos_wanted WHERE key = :key"""


def run_two() -> Books:
    """Two jobs of one ordering key, one after the other, as they should be."""
    make_tables()
    ledger.make_type("chaos.effect", key=["string"])
    books = Books(committed=["first", "second"], rolled_back=["third"])
    for key in books.committed:
        with transaction() as session:
            want(session, key, jobs.enqueue(session, "chaos.effect", key, ordering_key="one"), ordering_key="one")
    for key in books.committed:
        (message,) = ledger.lease()
        taken = ledger.claim(message.task_id, message.task)
        assert taken is not None
        with ledger.attempt(taken), transaction():
            change(_EFFECT, key=key)
    return books


def test_they_are_silent_when_all_is_well() -> None:
    assert list(broken(run_two())) == []


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("DELETE FROM chaos_effects WHERE key = 'first'", "another number of effects than one"),
        (_EFFECT.replace(":key", "'second'"), "another number of effects than one"),
        ("DELETE FROM chaos_wanted WHERE key = 'second'", "has an effect, and was not committed"),
        ("DELETE FROM chaos_wanted WHERE key = 'second'", "lost what it said it had committed: ['second']"),
        ("UPDATE chaos_effects SET task_id = (SELECT task_id FROM chaos_wanted w WHERE w.key <> chaos_effects.key)",
         "overtook another one"),
        ("UPDATE chaos_effects SET begun_at = begun_at - interval '1 hour' WHERE key = 'second'", "before its time"),
        ("UPDATE chaos_effects SET ended_at = ended_at + interval '1 hour' WHERE key = 'first'",
         "before another one of its ordering key was over"),
        ("INSERT INTO chaos_wanted (key, delay_seconds) VALUES ('third', 0)",
         "kept what was rolled back: ['third']"),
        ("UPDATE chaos_effects SET key = 'fourth' WHERE key = 'first'", "effects that nobody committed"),
        ("DELETE FROM jobs WHERE args->>0 = 'first'", "is not in the ledger"),
    ],
)  # fmt: skip
def test_they_see(fault: str, told: str) -> None:
    books = run_two()

    change(fault)

    assert any(told in problem for problem in broken(books))
