"""Any sequence of calls gives what a few dictionaries say it must: what is held, what is free, who is refused."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from sqlalchemy import text

from db.reservations import units
from tests.db.machine import Shop

_ROUNDS = int(os.environ.get("HARBOR_TEST_ROUNDS", "1"))


def _settings(**more: Any) -> settings:
    return settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], **more)


def test_any_sequence_of_calls_keeps_every_promise(database: None) -> None:
    run_state_machine_as_test(Shop, settings=_settings(max_examples=40 * _ROUNDS, stateful_step_count=40))


def test_an_end_that_gives_back_too_much_does_not_escape_it(database: None, monkeypatch: pytest.MonkeyPatch) -> None:
    right = "sum(qty - released_qty)"
    assert units._UNITS.text.count(right) == 1
    monkeypatch.setattr(units, "_UNITS", text(units._UNITS.text.replace(right, "sum(qty)")))
    # The same examples each time, and the first that fails is enough.
    hunt = _settings(
        max_examples=200,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )

    with pytest.raises(AssertionError):
        run_state_machine_as_test(Shop, settings=hunt)
