"""Taking units for an order: all of it or nothing, once per order, and never more than there is.

The order that succeeds takes one round trip, harbor_reserve_v1, because the row of a hot variant stays locked until the
commit. It works inside a savepoint of its own: when it comes up short, going back to it also frees the variants it had
locked, and only then may the caller wait for the due holds whose units it needs (without that, 19 deadlocks in 10 s
were measured; with it none). Only then, too, does anybody ask for the reason: unknown and archived variants, an order
that has its hold already, a variant that is sold out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Row, text

from db.errors import InsufficientStock, OrderAlreadyReserved, OrderContended, VariantArchived, VariantNotFound
from db.reservations.hold import DEFAULT_HOLD, DEFAULT_MAX_HOLD, Hold, HoldState
from db.reservations.request import Request
from db.reservations.units import close, closing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from sqlalchemy.orm import Session

# A buyer closes as many due holds as the order needs, and up to this many for those who wait behind the same locks:
# without them each would find the holds it had chosen taken, and be refused while others are still due.
_RECLAIMED_FOR_OTHERS: Final = 200

RACES: Final = 8  # How often others may change the order's hold or its units while this call looks and tries.


def reserve(
    session: Session,
    order_id: str,
    lines: Mapping[int, int],
    *,
    hold: timedelta = DEFAULT_HOLD,
    max_hold: timedelta = DEFAULT_MAX_HOLD,
) -> Hold:
    """Take units of one or more variants for an order, all or nothing, until `hold` is over.

    The same order with the same lines again returns its hold, held or confirmed; after release or expiry it makes a new
    one. When units are short, due holds of those variants are closed on the spot. One call per transaction that moves
    units: a second would lock variants out of order.

    Args:
        session: the caller's session; nothing is committed.
        order_id: the caller's own name for the order, 1 to 200 characters.
        lines: variant id to units, 1 to 1,000 variants of 1 to 2^31-1 units.
        hold: how long the units are kept, counted from the call: waiting for a hot variant is part of it.
        max_hold: how long they can be kept when the hold is extended; at most 30 days.

    Raises:
        InvalidInput: an argument is out of range; the message names it.
        InsufficientStock: some variant has too few units; nothing was taken of any.
        OrderAlreadyReserved: the order has a hold for other lines.
        OrderContended: others keep changing this order's hold or its units; try again.
        VariantArchived, VariantNotFound: a variant is not for sale, or does not exist.
    """
    request = Request.checked(order_id, lines, hold, max_hold)
    taken = _take(session, request, freed={})
    for _ in range(RACES):
        if taken is not None:
            return taken
        seen = _look(session, request)
        if seen.live is not None:
            return same(seen.live, request)
        if seen.sold_out:
            raise InsufficientStock(order_id=request.order_id, variant_ids=seen.sold_out)
        taken = _reclaim_and_take(session, request, seen)
    if taken is None:
        raise OrderContended(order_id=request.order_id)
    return taken


_TAKE = text("""
SELECT reservation_id, expires_at
  FROM harbor_reserve_v1(:order_id, :request_hash, :hold, :max_hold, CAST(:variant_ids AS bigint[]),
                         CAST(:qtys AS int[]), CAST(:freed_ids AS bigint[]), CAST(:freed_qtys AS bigint[]))
""")


def _take(session: Session, request: Request, *, freed: Mapping[int, int]) -> Hold | None:
    """Make the hold, or write nothing, keep no lock and return None: the look then says why.

    Args:
        session: the caller's session.
        request: what to take.
        freed: variant id to units of holds that this transaction has closed; they are put back on sale first.
    """
    told = {
        "order_id": request.order_id,
        "request_hash": request.request_hash,
        "hold": request.hold,
        "max_hold": request.max_hold,
        "variant_ids": request.variant_ids,
        "qtys": request.qtys,
        "freed_ids": list(freed),
        "freed_qtys": list(freed.values()),
    }
    row = session.execute(_TAKE, told).one_or_none()
    return None if row is None else Hold(row.reservation_id, request.order_id, HoldState.HELD, row.expires_at)


# ---- the look --------------------------------------------------------------------------------------------------------

_LOOK = text("""
SELECT variant_id, known, archived, short, reclaimable, id, order_id, state, expires_at, request_hash, live_due
  FROM harbor_look_v1(:order_id, CAST(:variant_ids AS bigint[]), CAST(:qtys AS int[]))
""")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look, without any lock, says about a request.

    `live` is the order's hold, `own_due` the one it has just lost; `short` are the variants with too few units, and
    `sold_out` those of them which closing every due hold could not fill.
    """

    live: Row[Any] | None
    own_due: list[int]
    short: list[int]
    sold_out: list[int]


def _look(session: Session, request: Request) -> _Seen:
    rows = session.execute(
        _LOOK, {"order_id": request.order_id, "variant_ids": request.variant_ids, "qtys": request.qtys}
    ).all()
    first = rows[0]
    if first.id is not None and not first.live_due:
        return _Seen(first, [], [], [])
    if unknown := [row.variant_id for row in rows if not row.known]:
        raise VariantNotFound(variant_ids=unknown)
    if archived := [row.variant_id for row in rows if row.archived]:
        raise VariantArchived(variant_ids=archived)
    # An order whose own hold is due has lost it, swept or not, and makes a new one.
    own_due = [first.id] if first.live_due else []
    short = [row.variant_id for row in rows if row.short]
    return _Seen(None, own_due, short, [row.variant_id for row in rows if row.short and not row.reclaimable])


def same(live: Row[Any], request: Request) -> Hold:
    """Return the hold that the order has already. Raises OrderAlreadyReserved when it is for other lines."""
    if live.request_hash != request.request_hash:
        raise OrderAlreadyReserved(order_id=request.order_id, reservation_id=live.id)
    return Hold(live.id, live.order_id, HoldState(live.state), live.expires_at)


# ---- the reclaim -----------------------------------------------------------------------------------------------------

# For `variant_id + 0` see batch.py.
_RECLAIM = closing(
    HoldState.EXPIRED,
    """SELECT id FROM stock_reservations
        WHERE state = 'held' AND expires_at <= statement_timestamp()
          AND id = ANY (CAST(:own_due AS bigint[]) || ARRAY(
            SELECT chosen.id FROM (
              SELECT l.reservation_id AS id, w.qty AS wanted, row_number() OVER older AS place,
                     sum(l.qty - l.released_qty) OVER older - (l.qty - l.released_qty) AS freed_before
                FROM unnest(CAST(:short AS bigint[]), CAST(:wanted AS bigint[])) AS w(variant_id, qty)
                JOIN stock_reservation_lines l ON l.variant_id + 0 = w.variant_id
               WHERE l.reservation_id = ANY (ARRAY(
                 SELECT id FROM stock_reservations WHERE state = 'held' AND expires_at <= statement_timestamp()))
              WINDOW older AS (PARTITION BY l.variant_id ORDER BY l.reservation_id)) chosen
             WHERE chosen.freed_before < chosen.wanted OR chosen.place <= :others))
        ORDER BY id FOR NO KEY UPDATE""",
)


def reclaim(session: Session, own_due: list[int], short: Mapping[int, int]) -> dict[int, int]:
    """Close due holds and return the units that the caller now has to give back, by ascending variant id.

    Args:
        session: the caller's session, in which no variant is locked yet.
        own_due: due holds of the orders themselves.
        short: variant id to the units that are wanted of it; as many due holds are closed as that takes, and some more.
    """
    told = {
        "own_due": own_due,
        "short": list(short),
        "wanted": list(short.values()),
        "others": _RECLAIMED_FOR_OTHERS // max(1, len(short)),
    }
    return close(session, _RECLAIM, told).units


def _reclaim_and_take(session: Session, request: Request, seen: _Seen) -> Hold | None:
    """Close due holds of the variants that are short, then take. What did not help is undone; the sweep comes by."""
    with session.begin_nested() as savepoint:
        freed = reclaim(session, seen.own_due, {one: request.lines[one] for one in seen.short})
        taken = _take(session, request, freed=freed)
        if taken is None:
            savepoint.rollback()
    return taken
