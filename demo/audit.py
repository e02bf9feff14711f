"""What the database says of the demo: while it runs, and at the end, when the books are checked.

The sums are made from the rows of holds, lines and movements alone; no function that moves units has a part in them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db import engine, inventory
from db.session import snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from demo.ledger import Window

_GONE_SECONDS: Final = 10
_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Pulse:
    """How things stand at this moment: holds that are open, the units in them, and holds that have expired.

    `lag_seconds` is how long the oldest hold whose time is over has been waiting to be closed. Jobs are those of all
    tasks, and `ticks` those of all schedules that made a job.
    """

    open_holds: int = 0
    held_units: int = 0
    expired_holds: int = 0
    lag_seconds: float = 0.0
    jobs_done: int = 0
    jobs_waiting: int = 0
    ticks: int = 0


_PULSE = text("""
SELECT (SELECT count(*) FROM stock_reservations WHERE state = 'expired') AS expired_holds,
       (SELECT count(*) FROM jobs WHERE state = 'done') AS jobs_done,
       (SELECT count(*) FROM jobs WHERE finished_at IS NULL) AS jobs_waiting,
       (SELECT count(*) FROM schedule_ticks WHERE task_id IS NOT NULL) AS ticks,
       count(*) AS open_holds,
       coalesce(sum(l.units), 0)::bigint AS held_units,
       coalesce(greatest(0, extract(epoch FROM statement_timestamp() - min(r.expires_at))), 0)::float8 AS lag_seconds
  FROM stock_reservations r
 CROSS JOIN LATERAL (SELECT sum(qty - released_qty) AS units
                       FROM stock_reservation_lines WHERE reservation_id = r.id) AS l
 WHERE r.state = 'held'
""")


def pulse() -> Pulse:
    """Return how things stand now."""
    with snapshot() as session:
        return Pulse(**session.execute(_PULSE).one()._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it


def now() -> datetime:
    """Return the time by the database's clock, which decides when a hold is over."""
    with snapshot() as session:
        moment: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
        return moment


@dataclass(frozen=True, slots=True)
class Audit:
    """The books at the end.

    Attributes:
        holds: Holds ever made.
        confirmed, released, expired: How many of them ended in which way.
        oversold_units: Units that were sold or are held and never were there.
        unreturned_units: Units that came, are neither sold nor held and are not on sale, and those of overdue holds.
        unreconciled_variants: Variants that break the invariant of `inventory.reconcile`.
        deadlocks: That PostgreSQL broke up in this database since it was made.
        lag_p50_s, lag_p99_s: Seconds from the end of a hold's time to its closing, of the holds that no fault met.
        lag_p99_fault_s: The same of those that were due during a fault; None when there was none.
    """

    holds: int
    confirmed: int
    released: int
    expired: int
    oversold_units: int
    unreturned_units: int
    unreconciled_variants: int
    deadlocks: int
    lag_p50_s: float | None
    lag_p99_s: float | None
    lag_p99_fault_s: float | None


_ENDINGS = text("""
SELECT count(*) AS holds,
       count(*) FILTER (WHERE state = 'confirmed') AS confirmed,
       count(*) FILTER (WHERE state = 'released') AS released,
       count(*) FILTER (WHERE state = 'expired') AS expired
  FROM stock_reservations
""")

_UNITS = text("""
WITH lines AS (
  SELECT l.variant_id,
         sum(l.qty - l.released_qty) FILTER (WHERE r.state IN ('held', 'confirmed')) AS gone,
         sum(l.qty - l.released_qty) FILTER (WHERE r.state = 'held' AND r.expires_at <= statement_timestamp()) AS late
    FROM stock_reservation_lines l JOIN stock_reservations r ON r.id = l.reservation_id
   GROUP BY l.variant_id),
came AS (
  SELECT variant_id, sum(qty) AS units FROM stock_movements WHERE kind <> 'sale' GROUP BY variant_id),
books AS (
  SELECT v.stock_qty AS stock, coalesce(came.units, 0) - coalesce(lines.gone, 0) AS due, coalesce(lines.late, 0) AS late
    FROM variants v LEFT JOIN lines ON lines.variant_id = v.id LEFT JOIN came ON came.variant_id = v.id)
SELECT coalesce(sum(greatest(0, -due, -stock)), 0)::bigint AS oversold_units,
       coalesce(sum(greatest(0, due - stock) + late), 0)::bigint AS unreturned_units
  FROM books
""")

# A fault meets a hold when it lasts at any moment between the end of the hold's time and its closing.
_LAGS = text("""
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY lag) FILTER (WHERE NOT met) AS lag_p50_s,
       percentile_disc(0.99) WITHIN GROUP (ORDER BY lag) FILTER (WHERE NOT met) AS lag_p99_s,
       percentile_disc(0.99) WITHIN GROUP (ORDER BY lag) FILTER (WHERE met) AS lag_p99_fault_s
  FROM (SELECT extract(epoch FROM resolved_at - expires_at)::float8 AS lag,
               EXISTS (
                 SELECT FROM unnest(CAST(:begins AS timestamptz[]), CAST(:ends AS timestamptz[])) AS fault(begins, ends)
                  WHERE expires_at <= fault.ends AND resolved_at >= fault.begins) AS met
          FROM stock_reservations WHERE state = 'expired') AS expired
""")


def audit(faults: Sequence[Window]) -> Audit:
    """Check the books, all sums in one snapshot. `faults` are the times in which something was wrong."""
    broken = inventory.reconcile().broken
    met = {"begins": [begins for begins, _ in faults], "ends": [ends for _, ends in faults]}
    with snapshot() as session:
        found = [
            session.execute(_ENDINGS),
            session.execute(_UNITS),
            session.execute(_LAGS, met),
        ]
        sums = {key: value for result in found for key, value in result.one()._mapping.items()}  # noqa: SLF001
    return Audit(**sums, unreconciled_variants=len(broken), deadlocks=deadlocks())


def sessions(application_name: str) -> int:
    """Return how many connections to this database the processes of this name have."""
    with snapshot() as session:
        counted = text("""SELECT count(*) FROM pg_stat_activity
                           WHERE datname = current_database() AND application_name = :name""")
        return int(session.execute(counted, {"name": application_name}).scalar_one())


def deadlocks() -> int:
    """Return how many deadlocks PostgreSQL has counted in this database; a process reports its own when it ends."""
    with snapshot() as session:
        counted = text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
        return int(session.execute(counted).scalar_one())


def wait_until_alone() -> None:
    """Wait until no other process is connected to this database, and so all that they counted is known."""
    engine.dispose()
    others = text("""SELECT count(*) FROM pg_stat_activity
                      WHERE datname = current_database() AND pid <> pg_backend_pid()
                        AND backend_type = 'client backend'""")
    deadline = time.monotonic() + _GONE_SECONDS
    while time.monotonic() < deadline:
        with snapshot() as session:
            if not session.execute(others).scalar_one():
                return
        time.sleep(_POLL_SECONDS)
