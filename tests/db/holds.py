"""Holds in each state that one can be found in, made by the same functions that services use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from db import inventory, reservations
from db.reservations import DEFAULT_HOLD
from db.session import transaction
from tests.db.sql import change, everything, make_due, rows, touched_nothing, value
from tests.factories import make_variant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta
    from typing import Any

    from db.errors import HarborError
    from db.reservations import Hold, HoldRequest, RefundRequired

PAYMENT = "payment-1"
MISSING = 999_999


def received(variant_id: int, qty: int) -> None:
    """Commit a delivery."""
    with transaction() as session:
        inventory.receive(session, variant_id, qty)


def reserved(order_id: str, lines: Mapping[int, int]) -> Hold:
    """Commit a hold."""
    with transaction() as session:
        return reservations.reserve(session, order_id, lines)


def confirmed(reservation_id: int, payment_ref: str = PAYMENT) -> Hold:
    """Commit the sale of a hold."""
    with transaction() as session:
        return reservations.confirm(session, reservation_id, payment_ref)


def released(reservation_id: int) -> Hold:
    """Commit the release of a hold."""
    with transaction() as session:
        return reservations.release(session, reservation_id)


def extended(reservation_id: int, hold: timedelta = DEFAULT_HOLD) -> Hold:
    """Commit a longer life of a hold."""
    with transaction() as session:
        return reservations.extend(session, reservation_id, hold=hold)


def kept(reservation_id: int, keep: Mapping[int, int]) -> Hold:
    """Commit the release of all of a hold but `keep`."""
    with transaction() as session:
        return reservations.release(session, reservation_id, keep)


def paid(reservation_id: int, payment_ref: str = PAYMENT) -> Hold | RefundRequired:
    """Commit the answer to a payment, in time or late."""
    with transaction() as session:
        return reservations.confirm_or_reacquire(session, reservation_id, payment_ref)


def paid_again(reservation_id: int, answer: Hold | RefundRequired) -> bool:
    """Whether PAYMENT is answered in this way once more, and nothing is written or locked."""
    before = everything()
    with transaction() as session:
        again = reservations.confirm_or_reacquire(session, reservation_id, PAYMENT)
        untouched = touched_nothing(session)
    return (again, untouched, everything()) == (answer, True, before)


def reserved_many(*requests: HoldRequest) -> list[Hold | HarborError]:
    """Commit the holds of a batch."""
    with transaction() as session:
        return reservations.reserve_many(session, requests)


def swept(limit: int = 500) -> int:
    """Commit a sweep."""
    with transaction() as session:
        return reservations.expire_due(session, limit)


def many_due(holds: int, lines: Mapping[int, int]) -> None:
    """Commit `holds` due holds of the same lines, each a millisecond older than the next, and the units they have."""
    told = {"holds": holds, "variant_ids": list(lines), "qtys": list(lines.values())}
    change(
        """WITH opened AS (
             INSERT INTO stock_reservations (order_id, request_hash, expires_at, max_expires_at)
             SELECT gen_random_uuid()::text, '', due, due
               FROM generate_series(1, :holds) AS number,
                    LATERAL (SELECT statement_timestamp() - interval '1 hour' + number * interval '1 ms') AS d(due)
             RETURNING id)
           INSERT INTO stock_reservation_lines (reservation_id, variant_id, qty)
           SELECT opened.id, line.variant_id, line.qty
             FROM opened, unnest(CAST(:variant_ids AS bigint[]), CAST(:qtys AS int[])) AS line(variant_id, qty)""",
        **told,
    )
    change(
        """INSERT INTO stock_movements (variant_id, kind, qty)
           SELECT variant_id, 'receive', :holds * qty
             FROM unnest(CAST(:variant_ids AS bigint[]), CAST(:qtys AS int[])) AS line(variant_id, qty)""",
        **told,
    )


def hold_in(state: str, order_id: str, lines: Mapping[int, int]) -> int:
    """Commit a hold that stands in `state`, and return its id; `due` is held with its time over, before any sweep."""
    if state == "missing":
        return MISSING
    reservation_id = reserved(order_id, lines).id
    if state in {"due", "expired"}:
        make_due(reservation_id)
    if state == "confirmed":
        confirmed(reservation_id)
    elif state == "released":
        released(reservation_id)
    elif state == "expired":
        swept()
    return reservation_id


def sold_out() -> tuple[int, int]:
    """Commit an expired hold of order-1 and one of order-2 that has its units; return the first and the variant."""
    variant_id = make_variant(stock=2)
    old = hold_in("expired", "order-1", {variant_id: 2})
    reserved("order-2", {variant_id: 2})
    return old, variant_id


def state_of(reservation_id: int) -> str:
    """The state of a hold as its row says it."""
    return str(value("SELECT state FROM stock_reservations WHERE id = :id", id=reservation_id))


def sales_of(reservation_id: int) -> list[tuple[int, int]]:
    """The sales of a hold: variant id and units, ascending."""
    sales = "SELECT variant_id, qty FROM stock_movements WHERE kind = 'sale' AND reservation_id = :id ORDER BY 1"
    return [(variant_id, qty) for variant_id, qty in rows(sales, id=reservation_id)]


def lines_of(reservation_id: int) -> dict[int, int]:
    """What a hold still has, or had at its end: variant id to units."""
    lines = "SELECT variant_id, qty - released_qty FROM stock_reservation_lines WHERE reservation_id = :id ORDER BY 1"
    return {variant_id: qty for variant_id, qty in rows(lines, id=reservation_id) if qty}


def refunds() -> list[tuple[Any, ...]]:
    """Every payment that has to go back: its reference, hold, order, reason and missing variants."""
    return rows("SELECT payment_ref, reservation_id, order_id, reason, variant_ids FROM required_refunds ORDER BY 1")


def broken() -> list[inventory.BrokenVariant]:
    """The variants whose units do not add up."""
    return inventory.reconcile().broken
