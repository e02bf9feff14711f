"""In any order of calls, crashes and lost messages a job is in one state, its effect is there once, and it ends."""

from __future__ import annotations

import importlib
import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.db.ledger_machine import Ledger

_ROUNDS = int(os.environ.get("HARBOR_TEST_ROUNDS", "1"))


def _settings(**more: Any) -> settings:
    return settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], **more)


def test_any_sequence_of_events_keeps_every_promise(database: None) -> None:
    run_state_machine_as_test(Ledger, settings=_settings(max_examples=40 * _ROUNDS, stateful_step_count=40))


@pytest.mark.parametrize(
    ("statement", "guard"),
    [
        ("_CLAIM", "AND (state = 'published' OR state = 'running' AND lease_until <= statement_timestamp())"),
        ("_COMPLETE", "AND lease_token = :token"),
        ("_SETTLE", "AND lease_token = :token"),
    ],
)
def test_a_statement_without_its_guard_does_not_escape_it(
    database: None, monkeypatch: pytest.MonkeyPatch, statement: str, guard: str
) -> None:
    claims = importlib.import_module("db.jobs.claim")
    right = getattr(claims, statement).text
    assert right.count(guard) == 1
    # What is bound must still be told.
    monkeypatch.setattr(claims, statement, text(right.replace(guard, "AND CAST(:token AS uuid) IS NOT NULL")))
    # The same examples each time, and the first that fails is enough.
    hunt = _settings(
        max_examples=60,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )

    with pytest.raises((AssertionError, DBAPIError)):
        run_state_machine_as_test(Ledger, settings=hunt)
