"""Taking units for many orders in one transaction: each is answered by itself, and one lock serves them all.

On one hot variant a commit per order is the limit. A hundred orders that share one update and one commit are some
fifteen times as many a second, which is why the queue of a hot drop is drained by this.

It goes like `reserve`: a look without any lock decides, in the order of the requests, who can be served; then due holds
are closed, holds made, variants locked ascending, units taken. Whoever changed something in between sends all of it
back to the look, where whoever was refused for the sake of another may be served after all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from db.errors import (
    HarborError,
    InsufficientStock,
    InvalidRequest,
    InvalidRequests,
    OrderAlreadyReserved,
    OrderContended,
    shown,
)
from db.reservations.batch import Seen, Taken, due_units, serve, take, units_of
from db.reservations.request import HoldRequest, Request
from db.reservations.take import RACES, same

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    seen, taken = Seen(), None
    for _ in range(RACES if wishes else 0):
        seen = _look(session, wishes)
        if (taken := take(session, seen)) is not None:
            break
    taken = taken or Taken()
    return [_answer(seen, taken, place, one) for place, one in enumerate(asked)]


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


def _answer(seen: Seen, taken: Taken, place: int, one: Request | HarborError) -> Hold | HarborError:
    if not isinstance(one, Request):
        return one
    if refusal := seen.refused.get(place):
        return refusal
    beaten = taken.beaten.get(one.order_id)
    if beaten is not None and one.request_hash == seen.served[one.order_id].request_hash:
        return beaten
    hold = seen.live.get(one.order_id) or taken.made.get(one.order_id)
    try:
        return OrderContended(order_id=one.order_id) if hold is None else same(hold, one)
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


def _look(session: Session, wishes: dict[int, Request]) -> Seen:
    order_ids = sorted({wish.order_id for wish in wishes.values()})
    known = {row.order_id: row for row in session.execute(_LIVE, {"order_ids": order_ids})}
    live = {order_id: row for order_id, row in known.items() if not row.due}
    wishes = {place: wish for place, wish in wishes.items() if wish.order_id not in live}
    wanted = units_of(wishes.values())
    variants = {row.id: row for row in session.execute(_VARIANTS, {"variant_ids": list(wanted)})}
    left = {one: row.stock_qty for one, row in variants.items()}
    if scarce := [one for one in left if left[one] < wanted[one]]:
        for variant_id, qty in due_units(session, scarce).items():
            left[variant_id] += qty
    served, refused = serve(wishes, variants, left)
    units = units_of(served.values())
    short = {one: qty for one, qty in units.items() if variants[one].stock_qty < qty}
    own_due = sorted(known[order_id].id for order_id in served if order_id in known)
    waiting = {place: wishes[place] for place, error in refused.items() if isinstance(error, InsufficientStock)}
    return Seen(live, refused, waiting, served, variants, units, short, own_due)
