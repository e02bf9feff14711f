"""A sweeper that is killed at any moment loses nothing and gives nothing back twice; the next one finishes."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from db import inventory, reservations
from db.session import transaction
from tasks.reservations import sweep
from tests.concurrency.books import failures
from tests.concurrency.crowd import crowd
from tests.db.holds import many_due
from tests.db.sql import eventually, locked, rows, somebody_waits_for_a_lock, value
from tests.factories import make_variants, stock_of
from tests.processes import process, program, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker import Broker
    from tests.concurrency.crowd import Member

pytestmark = pytest.mark.usefixtures("environ")

_HOLDS = 100
_MANY_HOLDS = 20_000  # A sweep of several seconds, so that a kill hits the middle of it.
_REPORT_SECONDS = 30
_SWEEP_SECONDS = 60


def _sweep_and_stand_still(member: Member) -> None:
    with transaction() as session:
        member.report(reservations.expire_due(session, _HOLDS))
        member.stand_still()


def _sweep_once(member: Member) -> int:
    with transaction() as session:
        return reservations.expire_due(session, _HOLDS)


def _states() -> dict[str, int]:
    return dict(rows("SELECT state, count(*) FROM stock_reservations GROUP BY state"))


def _the_killed_one_is_gone() -> bool:
    return not value("SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^crowd-'")


def test_killed_before_its_commit_a_sweep_has_done_nothing() -> None:
    variant_ids = make_variants(2, stock=5)
    many_due(_HOLDS, {variant_ids[0]: 2, variant_ids[1]: 1})

    with crowd(1) as sweepers:
        sweeper = sweepers.start(_sweep_and_stand_still)
        closed = sweeper.told(_REPORT_SECONDS)
        sweeper.kill()
    eventually(_the_killed_one_is_gone)
    after_the_kill = _states(), [stock_of(variant_id) for variant_id in variant_ids], failures()
    swept = sweep(timedelta(seconds=10))

    assert closed == _HOLDS
    assert after_the_kill == ({"held": _HOLDS}, [5, 5], [])
    assert (swept.holds, swept.finished) == (_HOLDS, True)
    assert _states() == {"expired": _HOLDS}
    assert [stock_of(variant_id) for variant_id in variant_ids] == [5 + 2 * _HOLDS, 5 + _HOLDS]
    assert failures() == []


def test_killed_between_closing_holds_and_giving_units_back_a_sweep_has_done_nothing() -> None:
    variant_ids = make_variants(2, stock=5)
    many_due(_HOLDS, {variant_ids[0]: 2, variant_ids[1]: 1})

    with crowd(1) as sweepers:
        # With the holds closed it waits for this variant, and there it is killed.
        with locked("SELECT id FROM variants WHERE id = :id FOR NO KEY UPDATE", id=variant_ids[1]):
            sweeper = sweepers.start(_sweep_once)
            eventually(somebody_waits_for_a_lock)
            sweeper.kill()
        eventually(_the_killed_one_is_gone)
    after_the_kill = _states(), [stock_of(variant_id) for variant_id in variant_ids], failures()
    swept = sweep(timedelta(seconds=10))

    assert after_the_kill == ({"held": _HOLDS}, [5, 5], [])
    assert (swept.holds, swept.finished) == (_HOLDS, True)
    assert [stock_of(variant_id) for variant_id in variant_ids] == [5 + 2 * _HOLDS, 5 + _HOLDS]
    assert failures() == []


def test_a_worker_killed_in_the_middle_of_a_long_sweep_is_finished_by_another(
    environ: dict[str, str], broker: Broker, tmp_path: Path
) -> None:
    variant_ids = make_variants(6, stock=5)
    many_due(_MANY_HOLDS, dict.fromkeys(variant_ids[:2], 1))
    working = broker.environ({**environ, "HARBOR_WORKER_POOL": "expiry"})
    command = [program("celery"), "-A", "worker", "worker", "--concurrency", "1", "-Q", "expiry"]
    beat, relay = [program("celery"), "-A", "worker", "beat"], [program("harbor"), "relay"]

    with process(beat, working, tmp_path / "beat.log") as ticking, process(relay, working, tmp_path / "relay.log"):
        with process(command, working, tmp_path / "first.log") as first:
            wait_until(lambda: _states().get("expired", 0) > 0, _SWEEP_SECONDS, first, ticking)
            first.kill_group()
        at_the_kill = _states(), failures()
        with process(command, working, tmp_path / "second.log") as second:
            wait_until(lambda: _states().get("held", 0) == 0, _SWEEP_SECONDS, second, ticking)

    states, broken = at_the_kill
    assert 0 < states["expired"] < _MANY_HOLDS
    assert broken == []
    assert _states() == {"expired": _MANY_HOLDS}
    assert [stock_of(variant_id) for variant_id in variant_ids] == [5 + _MANY_HOLDS] * 2 + [5] * 4
    assert failures() == []
    assert inventory.reconcile().broken == []
