"""The books: for every variant `stock_qty + units in open holds = sum of its movements`.

This proves it from the rows and repairs nothing, because a broken invariant is a defect to find and not a number to
overwrite.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from db.checks import checked_id, checked_limit
from db.errors import InvalidBudget, shown
from db.session import snapshot

_MAX_PAGE: Final = 100_000


@dataclass(frozen=True, slots=True)
class BrokenVariant:
    """A variant whose units do not add up: `stock_qty + held_qty` should equal `moved_qty`, all in units."""

    variant_id: int
    sku: str
    stock_qty: int
    held_qty: int
    moved_qty: int


@dataclass(slots=True)
class Reconciliation:
    """What a run of `reconcile` saw. `next_after` is where to go on when the budget ended it, None when it saw all."""

    checked: int = 0
    broken: list[BrokenVariant] = field(default_factory=list)
    next_after: int | None = None


_RECONCILE = text("""
WITH page AS MATERIALIZED (
  SELECT id, sku, stock_qty FROM variants WHERE id > :after ORDER BY id LIMIT :page),
held AS (
  SELECT l.variant_id, sum(l.qty - l.released_qty) AS qty
    FROM stock_reservations r JOIN stock_reservation_lines l ON l.reservation_id = r.id
   WHERE r.state = 'held' AND l.variant_id > :after AND l.variant_id <= (SELECT max(id) FROM page)
   GROUP BY l.variant_id)
SELECT p.id, p.sku, p.stock_qty, coalesce(h.qty, 0)::bigint AS held_qty, coalesce(m.qty, 0)::bigint AS moved_qty
  FROM page p
  LEFT JOIN held h ON h.variant_id = p.id
  LEFT JOIN LATERAL (SELECT sum(s.qty) AS qty FROM stock_movements s WHERE s.variant_id = p.id) m ON true
 ORDER BY p.id
""")


def reconcile(*, budget: timedelta | None = None, after: int = 0, page: int = 1_000) -> Reconciliation:
    """Check the invariant of every variant, page by page, each page in a snapshot of its own. Changes nothing.

    Args:
        budget: stop after the page during which this much time has passed; None checks everything.
        after: start behind this variant id, such as a former run's `next_after`.
        page: variants per snapshot, 1 to 100,000.

    Raises:
        InvalidInput: `budget`, `after` or `page` is of the wrong type or out of range.
        SettingsError: HARBOR_DATABASE_URL is missing or malformed; it opens its snapshots itself.
    """
    checked_limit("page", page, most=_MAX_PAGE)
    if budget is not None and not isinstance(budget, timedelta):
        raise InvalidBudget(field="budget", value=shown(budget))
    if type(after) is not int or after != 0:
        checked_id("after", after)
    result = Reconciliation()
    ends = None if budget is None else time.monotonic() + budget.total_seconds()
    while True:
        with snapshot() as session:
            rows = session.execute(_RECONCILE, {"after": after, "page": page}).all()
        result.checked += len(rows)
        result.broken += [BrokenVariant(*row) for row in rows if row.stock_qty + row.held_qty != row.moved_qty]
        if len(rows) < page:
            return result
        after = rows[-1].id
        if ends is not None and time.monotonic() >= ends:
            result.next_after = after
            return result
