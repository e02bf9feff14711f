"""The rows that a round starts with, and the proof afterwards that no unit was lost.

Promise: what is loaded here obeys the invariant that `inventory.reconcile` proves, and every round starts from rows
that are new, vacuumed and analyzed, whichever side it belongs to.

No round starts from an empty table of holds. On an empty one PostgreSQL plans the check of a foreign key as a scan, and
a session keeps that plan while the table fills: one statement of a batch of 100 orders took 12 ms at first and 80 ms a
hundred batches later. In a shop the next ANALYZE ends that; no round is long enough to see it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from bench.database import vacuum
from bench.measure import check
from db import inventory
from db.session import transaction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import TextClause

PLENTY: Final = 10_000_000
"""Units of a variant that no round can sell out."""

_SOME: Final = 2_000  # Enough for PostgreSQL to plan by index.

_EMPTY = text("TRUNCATE products, variants, stock_reservations, stock_reservation_lines, stock_movements")

_STOCK = text("""
WITH product AS (INSERT INTO products (sku, name, price_cents) VALUES ('BENCH', 'Bench', 900) RETURNING id),
made AS (
  INSERT INTO variants (product_id, sku, stock_qty)
  SELECT product.id, 'BENCH-' || number, :units FROM product, generate_series(1, :variants) AS number
  RETURNING id),
moved AS (INSERT INTO stock_movements (variant_id, kind, qty) SELECT id, 'receive', :units FROM made)
SELECT id FROM made ORDER BY id
""")

# Each hold has two different variants, spread evenly and the same in every run.
_DUE_HOLDS = text("""
WITH opened AS (
  INSERT INTO stock_reservations (order_id, request_hash, created_at, expires_at, max_expires_at)
  SELECT 'due-' || number, '', statement_timestamp() - interval '2 hours',
         statement_timestamp() - interval '1 hour' + number * interval '1 millisecond', statement_timestamp()
    FROM generate_series(1, :holds) AS number
  RETURNING id),
spread AS (
  SELECT id, id * 7919 % :variants AS place, 1 + id % (:variants - 1) AS apart FROM opened),
lined AS (
  INSERT INTO stock_reservation_lines (reservation_id, variant_id, qty)
  SELECT id, (CAST(:variant_ids AS bigint[]))[1 + (place + line * apart) % :variants], 1 + (id + line) % 3
    FROM spread, generate_series(0, 1) AS line
  RETURNING variant_id, qty),
wanted AS (SELECT variant_id, sum(qty) AS qty FROM lined GROUP BY variant_id)
UPDATE variants SET stock_qty = stock_qty - wanted.qty FROM wanted WHERE variants.id = wanted.variant_id
""")

# Seven of ten were paid, as in the demo: these have entries in the indexes on order and payment. Each has one line. The
# stock does not count what was sold: as many were received. None expired, since the expired ones are counted.
_ENDED_HOLDS = text("""
WITH ended AS (
  INSERT INTO stock_reservations
         (order_id, request_hash, created_at, expires_at, max_expires_at, resolved_at, state, payment_ref)
  SELECT 'ended-' || number, '', ended - interval '15 minutes', ended, ended + interval '1 hour', ended,
         CASE WHEN number % 10 < 7 THEN 'confirmed' ELSE 'released' END,
         CASE WHEN number % 10 < 7 THEN 'payment-' || number END
    FROM (SELECT number, statement_timestamp() - number * interval '1 second' AS ended
            FROM generate_series(1, :holds) AS number) AS numbered
  RETURNING id)
INSERT INTO stock_reservation_lines (reservation_id, variant_id, qty)
SELECT id, (CAST(:variant_ids AS bigint[]))[1 + id * 7919 % :variants], 1 FROM ended
""")

_COUNTS = text("""
SELECT count(DISTINCT r.id) FILTER (WHERE r.state = 'held') AS held_holds,
       coalesce(sum(l.qty - l.released_qty) FILTER (WHERE r.state = 'held'), 0)::bigint AS held_units,
       count(DISTINCT r.id) FILTER (WHERE r.state = 'expired') AS expired_holds
  FROM stock_reservations r JOIN stock_reservation_lines l ON l.reservation_id = r.id
""")


_OLDEST_DUE = text("""
SELECT coalesce(sum(l.qty - l.released_qty), 0)::bigint
  FROM (SELECT id FROM stock_reservations WHERE state = 'held' ORDER BY expires_at LIMIT :holds) AS due
  JOIN stock_reservation_lines l ON l.reservation_id = due.id
""")


def load_stock(variants: int, units: int, *, ended_holds: int = _SOME) -> list[int]:
    """Start anew with `variants` variants of `units` units each, and return their ids, ascending.

    There are holds that ended long ago, of one line each, and none that is open.
    """
    with transaction() as session:
        session.execute(_EMPTY)
        ids = list(session.execute(_STOCK, {"variants": variants, "units": units}).scalars())
    _load(_ENDED_HOLDS, ended_holds, ids)
    return ids


def load_due_holds(holds: int, variant_ids: Sequence[int]) -> None:
    """Add holds of two lines each whose time is over, on variants of which there is plenty."""
    _load(_DUE_HOLDS, holds, variant_ids)


def _load(statement: TextClause, holds: int, variant_ids: Sequence[int]) -> None:
    told = {"holds": holds, "variants": len(variant_ids), "variant_ids": list(variant_ids)}
    with transaction() as session:
        session.execute(NO_TIMEOUT)
        session.execute(statement, told)
    vacuum()


NO_TIMEOUT = text("SET LOCAL statement_timeout = 0")
"""Loading a million holds, or sweeping 100,000 in one go, may take longer than Harbor lets a statement take."""


def units_of_oldest_due(holds: int) -> int:
    """Return how many units the `holds` holds that have been due for longest have together."""
    with transaction() as session:
        units: int = session.execute(_OLDEST_DUE, {"holds": holds}).scalar_one()
    return units


@dataclass(frozen=True, slots=True)
class Counts:
    """What the database holds, of holds that have lines."""

    held_holds: int
    held_units: int
    expired_holds: int


def counts() -> Counts:
    """Return what the database holds, as committed."""
    with transaction() as session:
        return Counts(*session.execute(_COUNTS).one())


def check_counts(side: str, expected: Counts) -> None:
    """Check that the database holds exactly what a side was told it does, and that no variant's units fail to add up.

    Stock, open holds and movements add up for every variant only if each unit was taken and given back exactly once.

    Raises:
        CheckFailedError: some unit or hold is too many or missing.
    """
    found = counts()
    check(f"{side} left {found}, which should be {expected}", right=found == expected)
    broken = inventory.reconcile(page=10_000).broken
    check(f"{side} broke the units of {len(broken)} variants, such as {broken[:1]}", right=not broken)
