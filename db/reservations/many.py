"""Taking units for many orders in one transaction: each is answered by itself, and one lock serves them all.

On one hot variant a commit per order is the limit. A hundred orders that share one update and one commit are some
twenty times as many a second, which is why the queue of a hot drop is drained by this.

It goes like `reserve`: a look without any lock decides, in the order of the requests, who can be served; then due holds
are closed, holds made, variants locked ascending, units taken. Whoever changed something in between sends all of it
back to the look, where whoever was refused for the sake of another may be served after all.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Row, text

from db.errors import (
    HarborError,
    InsufficientStock,
    InvalidRequest,
    InvalidRequests,
    OrderAlreadyReserved,
    OrderContended,
    VariantArchived,
    VariantNotFound,
    shown,
)
from db.reservations.request import HoldRequest, Request
from db.reservations.take import RACES, reclaim, same
from db.reservations.units import give_back, lock_variants

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sqlalchemy import CursorResult
    from sqlalchemy.orm import Session

    from db.reservations.hold import Hold

MAX_REQUESTS: Final = 1_000


def reserve_many(session: Session, requests: Sequence[HoldRequest]) -> list[Hold | HarborError]:
    """Take units for each order that can have all it asks for, and return one answer per request, in their order.

    Each answer is what `reserve` would return or raise if the requests came one after the other: where stock does not
    suffice for all, earlier ones go first, and one that is refused takes nothing from those behind it.

    Args:
        session: the caller's session; nothing is committed. One call per transaction that moves units.
        requests: up to 1,000. Batches of 50 to 200 are the fastest; a variant's row is locked for the length of one.

    Raises:
        InvalidRequests: it is no list, or too long. What is wrong with a single request is the answer to it.
    """
    asked = _checked_all(requests)
    wishes = {place: one for place, one in enumerate(asked) if isinstance(one, Request)}
    seen, made = _Seen(), None
    for _ in range(RACES if wishes else 0):
        seen = _look(session, wishes)
        if (made := _take(session, seen)) is not None:
            break
    holds = seen.live | (made or {})
    return [_answer(seen, holds, place, one) for place, one in enumerate(asked)]


def _checked_all(requests: object) -> list[Request | HarborError]:
    if not isinstance(requests, (list, tuple)):
        raise InvalidRequests(problem="must be a list of HoldRequest", value=shown(requests))
    if len(requests) > MAX_REQUESTS:
        raise InvalidRequests(problem=f"must be at most {MAX_REQUESTS}", value=len(requests))
    return [_checked(place, one) for place, one in enumerate(requests)]


def _checked(place: int, one: object) -> Request | HarborError:
    if not isinstance(one, HoldRequest):
        return InvalidRequest(place=place, value=shown(one))
    try:
        return Request.checked(one.order_id, one.lines, one.hold, one.max_hold)
    except HarborError as error:
        return error


def _answer(seen: _Seen, holds: dict[str, Row[Any]], place: int, one: Request | HarborError) -> Hold | HarborError:
    if not isinstance(one, Request):
        return one
    if refusal := seen.refused.get(place):
        return refusal
    try:
        return same(holds[one.order_id], one) if one.order_id in holds else OrderContended(order_id=one.order_id)
    except OrderAlreadyReserved as other_lines:
        return other_lines


# ---- the look --------------------------------------------------------------------------------------------------------

_LIVE = text("""
SELECT id, order_id, state, expires_at, request_hash,
       state = 'held' AND expires_at <= statement_timestamp() AS due
  FROM stock_reservations WHERE order_id = ANY (CAST(:order_ids AS text[])) AND state IN ('held', 'confirmed')
""")

_VARIANTS = text("""
SELECT v.id, v.stock_qty, p.archived_at IS NOT NULL AS archived
  FROM variants v JOIN products p ON p.id = v.product_id WHERE v.id = ANY (CAST(:variant_ids AS bigint[]))
""")

# For `variant_id + 0` see the look of a single order, in take.py.
_DUE_UNITS = text("""
SELECT variant_id, sum(qty - released_qty)::bigint AS qty FROM stock_reservation_lines
 WHERE variant_id + 0 = ANY (CAST(:variant_ids AS bigint[])) AND reservation_id = ANY (ARRAY(
   SELECT id FROM stock_reservations WHERE state = 'held' AND expires_at <= statement_timestamp())) GROUP BY variant_id
""")


@dataclass(frozen=True, slots=True)
class _Seen:
    """What one look, without any lock, says about a batch.

    `live` are the holds that orders have already, `refused` the answers by place in the batch, `served` the requests to
    take by order, `units` all that they take by ascending variant, `short` those of variants with too few units free to
    sell, and `own_due` the holds that the orders themselves have just lost.
    """

    live: dict[str, Row[Any]] = field(default_factory=dict)
    refused: dict[int, HarborError] = field(default_factory=dict)
    served: dict[str, Request] = field(default_factory=dict)
    units: dict[int, int] = field(default_factory=dict)
    short: dict[int, int] = field(default_factory=dict)
    own_due: list[int] = field(default_factory=list)


def _look(session: Session, wishes: dict[int, Request]) -> _Seen:
    order_ids = sorted({wish.order_id for wish in wishes.values()})
    known = {row.order_id: row for row in session.execute(_LIVE, {"order_ids": order_ids})}
    live = {order_id: row for order_id, row in known.items() if not row.due}
    wishes = {place: wish for place, wish in wishes.items() if wish.order_id not in live}
    wanted = _sum(wishes.values())
    variants = {row.id: row for row in session.execute(_VARIANTS, {"variant_ids": list(wanted)})}
    left = {one: row.stock_qty for one, row in variants.items()}
    if scarce := [one for one in left if left[one] < wanted[one]]:
        for row in session.execute(_DUE_UNITS, {"variant_ids": scarce}):
            left[row.variant_id] += row.qty
    served, refused = _serve(wishes, variants, left)
    units = _sum(served.values())
    short = {one: qty for one, qty in units.items() if variants[one].stock_qty < qty}
    own_due = sorted(known[order_id].id for order_id in served if order_id in known)
    return _Seen(live, refused, served, units, short, own_due)


def _serve(
    wishes: dict[int, Request], variants: dict[int, Row[Any]], left: dict[int, int]
) -> tuple[dict[str, Request], dict[int, HarborError]]:
    """Give what is `left` to one request after the other; return those that are served and those that are refused."""
    served: dict[str, Request] = {}
    refused: dict[int, HarborError] = {}
    for place, wish in wishes.items():
        if wish.order_id in served:
            continue  # The hold that it gets is the answer to this one too.
        if refusal := _refusal(wish, variants, left):
            refused[place] = refusal
        else:
            served[wish.order_id] = wish
            left.update({one: left[one] - qty for one, qty in wish.lines.items()})
    return served, refused


def _refusal(wish: Request, variants: dict[int, Row[Any]], left: dict[int, int]) -> HarborError | None:
    if unknown := [one for one in wish.lines if one not in variants]:
        return VariantNotFound(variant_ids=unknown)
    if archived := [one for one in wish.lines if variants[one].archived]:
        return VariantArchived(variant_ids=archived)
    if short := [one for one, qty in wish.lines.items() if left[one] < qty]:
        return InsufficientStock(order_id=wish.order_id, variant_ids=short)
    return None


def _sum(wishes: Iterable[Request]) -> dict[int, int]:
    units: Counter[int] = Counter()
    for wish in wishes:
        units.update(wish.lines)
    return dict(sorted(units.items()))


# ---- the taking ------------------------------------------------------------------------------------------------------

# In the order of the array, which everybody sorts alike: two batches wait for each other in one direction only. Orders
# that have got a hold since the look are left out: who is closing that one already may wait for one of ours.
_HOLDS = text("""
INSERT INTO stock_reservations (order_id, request_hash, expires_at, max_expires_at)
SELECT order_id, request_hash, statement_timestamp() + hold, statement_timestamp() + max_hold
  FROM unnest(CAST(:order_ids AS text[]), CAST(:request_hashes AS bytea[]), CAST(:holds AS interval[]),
              CAST(:max_holds AS interval[])) WITH ORDINALITY AS w(order_id, request_hash, hold, max_hold, place)
 WHERE NOT EXISTS (
   SELECT FROM stock_reservations r WHERE r.order_id = w.order_id AND r.state IN ('held', 'confirmed'))
 ORDER BY place
ON CONFLICT (order_id) WHERE state IN ('held', 'confirmed') DO NOTHING
RETURNING id, order_id, state, expires_at, request_hash
""")

# The guard, and the lines after it: their foreign key check then finds the row locked by this very transaction.
_TAKE = text("""
WITH taken AS (
  UPDATE variants v SET stock_qty = v.stock_qty - w.qty
    FROM unnest(CAST(:variant_ids AS bigint[]), CAST(:qtys AS bigint[])) AS w(variant_id, qty)
   WHERE v.id = w.variant_id AND v.stock_qty >= w.qty
  RETURNING v.id)
INSERT INTO stock_reservation_lines (reservation_id, variant_id, qty)
SELECT l.reservation_id, l.variant_id, l.qty
  FROM taken JOIN unnest(CAST(:line_holds AS bigint[]), CAST(:line_variants AS bigint[]), CAST(:line_qtys AS int[]))
       AS l(reservation_id, variant_id, qty) ON l.variant_id = taken.id
""")


def _take(session: Session, seen: _Seen) -> dict[str, Row[Any]] | None:
    """Make the holds and return them by order; or undo all of it, keep no lock and return None: others were faster."""
    if not seen.served:
        return {}
    with session.begin_nested() as savepoint:
        made = _try(session, seen)
        if made is None:
            savepoint.rollback()
    return made


def _try(session: Session, seen: _Seen) -> dict[str, Row[Any]] | None:
    freed = reclaim(session, seen.own_due, seen.short) if seen.own_due or seen.short else {}
    ordered = [wish for _, wish in sorted(seen.served.items())]
    told: dict[str, list[Any]] = {
        "order_ids": [wish.order_id for wish in ordered],
        "request_hashes": [wish.request_hash for wish in ordered],
        "holds": [wish.hold for wish in ordered],
        "max_holds": [wish.max_hold for wish in ordered],
    }
    made = {row.order_id: row for row in session.execute(_HOLDS, told)}
    if len(made) < len(ordered):
        return None
    # Ascending, as everybody does. One row needs no order.
    if len(locked := freed.keys() | seen.units.keys()) > 1:
        lock_variants(session, list(locked))
    give_back(session, freed, locked=True)
    lines = [(made[wish.order_id].id, *line) for wish in ordered for line in wish.lines.items()]
    holds, variants, qtys = (list(column) for column in zip(*lines, strict=True))
    told = {"variant_ids": list(seen.units), "qtys": list(seen.units.values())}
    told |= {"line_holds": holds, "line_variants": variants, "line_qtys": qtys}
    written = cast("CursorResult[Any]", session.execute(_TAKE, told)).rowcount
    return made if written == len(lines) else None
