"""The promise as a shop sees it: a hold that nobody confirmed comes back by itself, by stock Celery commands alone."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from db import inventory, reservations
from db.reservations import StockReservation
from db.session import transaction
from tests.factories import make_variant, stock_of
from tests.processes import process, program, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.broker import Broker


def _state(reservation_id: int) -> str:
    with transaction() as session:
        return session.get_one(StockReservation, reservation_id).state


def test_a_hold_expires_by_worker_and_beat_alone_and_both_end_cleanly(
    environ: dict[str, str], broker: Broker, tmp_path: Path
) -> None:
    variant_id = make_variant(stock=5)
    worker_command = [program("celery"), "-A", "worker", "worker", "--concurrency", "1"]
    beat_command = [program("celery"), "-A", "worker", "beat", "-s", str(tmp_path / "beat")]

    with (
        process(worker_command, broker.environ(environ), tmp_path / "worker.log") as worker,
        process(beat_command, broker.environ(environ), tmp_path / "beat.log") as beat,
    ):
        with transaction() as session:
            hold = reservations.reserve(session, "order-1", {variant_id: 3}, hold=timedelta(seconds=1))
        taken = stock_of(variant_id)
        wait_until(lambda: _state(hold.id) == "expired", 25, worker, beat)
        exit_codes = (beat.terminate(), worker.terminate())

    assert taken == 2
    assert stock_of(variant_id) == 5
    assert inventory.reconcile().broken == []
    assert exit_codes == (0, 0)
