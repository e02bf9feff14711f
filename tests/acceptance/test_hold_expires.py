"""The promise as a shop sees it: a hold that nobody confirmed comes back by itself, by a worker, a relay and a Beat."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from db import inventory, reservations
from db.reservations import StockReservation
from db.session import transaction
from tests.factories import make_variant, stock_of
from tests.processes import process, program, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.broker import Broker
    from tests.processes import Process

# A second of holding, five until the next tick, and the start of three programs on a busy machine.
_EXPIRY_SECONDS = 30


@contextmanager
def _running(
    environ: dict[str, str], broker: Broker, directory: Path, *options: str
) -> Iterator[tuple[Process, Process, Process]]:
    told = broker.environ(environ)
    worker_command = [program("celery"), "-A", "worker", "worker", "--concurrency", "1", *options]
    beat_command = [program("celery"), "-A", "worker", "beat"]
    with (
        process(worker_command, told, directory / "worker.log") as worker,
        process(beat_command, told, directory / "beat.log") as beat,
        process([program("harbor"), "relay"], told, directory / "relay.log") as relay,
    ):
        yield worker, beat, relay


def _hold(variant_id: int, units: int) -> int:
    with transaction() as session:
        return reservations.reserve(session, "order-1", {variant_id: units}, hold=timedelta(seconds=1)).id


def _has_expired(reservation_id: int) -> bool:
    with transaction() as session:
        return session.get_one(StockReservation, reservation_id).state == "expired"


def test_a_hold_expires_by_a_worker_a_beat_and_a_relay_and_all_end_cleanly(
    environ: dict[str, str], broker: Broker, tmp_path: Path
) -> None:
    variant_id = make_variant(stock=5)

    with _running(environ, broker, tmp_path) as (worker, beat, relay):
        hold_id = _hold(variant_id, 3)
        taken = stock_of(variant_id)
        wait_until(lambda: _has_expired(hold_id), _EXPIRY_SECONDS, worker, beat, relay)
        exit_codes = (beat.terminate(), relay.terminate(), worker.terminate())

    assert taken == 2
    assert stock_of(variant_id) == 5
    assert inventory.reconcile().broken == []
    assert exit_codes == (0, 0, 0)


def test_a_hold_expires_after_the_broker_lost_everything_it_had(
    environ: dict[str, str], broker: Broker, tmp_path: Path
) -> None:
    variant_id = make_variant(stock=5)

    with _running(environ, broker, tmp_path, "-Q", "expiry") as (worker, beat, relay):
        wait_until(lambda: worker.events("task.ran"), _EXPIRY_SECONDS, worker, beat, relay)
        broker.client.flushdb()
        hold_id = _hold(variant_id, 3)
        wait_until(lambda: _has_expired(hold_id), _EXPIRY_SECONDS, worker, beat, relay)

    assert stock_of(variant_id) == 5
    assert inventory.reconcile().broken == []
