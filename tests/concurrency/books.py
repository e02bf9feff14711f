"""Whether every unit is accounted for, counted from the rows and not by Harbor's own function."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from db.session import snapshot

if TYPE_CHECKING:
    from tests.concurrency.crowd import Member

_AUDIT_PAUSE_SECONDS = 0.05


@dataclass
class Audit:
    """How often the books were read, and each time they did not add up."""

    looks: int = 0
    failures: list[dict[str, Any]] = field(default_factory=list)


def audit(member: Member) -> Audit:
    """Read the books again and again until told to stop."""
    found = Audit()
    member.meet()
    while not member.stop.wait(_AUDIT_PAUSE_SECONDS):
        found.looks += 1
        found.failures += failures()
    return found


_BOOKS = text("""
SELECT * FROM (
  SELECT v.id, v.stock_qty,
         (SELECT coalesce(sum(m.qty), 0) FROM stock_movements m WHERE m.variant_id = v.id) AS moved,
         (SELECT coalesce(-sum(m.qty), 0) FROM stock_movements m
           WHERE m.variant_id = v.id AND m.kind = 'sale') AS sales,
         coalesce(sum(l.qty - l.released_qty) FILTER (WHERE r.state = 'held'), 0) AS held,
         coalesce(sum(l.qty - l.released_qty) FILTER (WHERE r.state = 'confirmed'), 0) AS confirmed
    FROM variants v
    LEFT JOIN stock_reservation_lines l ON l.variant_id = v.id
    LEFT JOIN stock_reservations r ON r.id = l.reservation_id
   GROUP BY v.id) books
 WHERE stock_qty < 0 OR stock_qty + held <> moved OR confirmed <> sales
""")


def failures() -> list[dict[str, Any]]:
    """Every variant whose units do not add up at one moment, seen in one snapshot."""
    with snapshot() as session:
        return [dict(row) for row in session.execute(_BOOKS).mappings()]
