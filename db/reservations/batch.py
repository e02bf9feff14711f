"""The orders of one `reserve_many`: who can be served, and the taking of their units all at once.

What a look without locks promised is counted again once the variants are locked: who then finds too little left is
refused without failing the others, unless due holds could help, which have to be closed before a variant is locked.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from sqlalchemy import Row, text

from db.errors import HarborError, InsufficientStock, VariantArchived, VariantNotFound
from db.reservations.take import reclaim
from db.reservations.units import give_back, lock_variants

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sqlalchemy import CursorResult
    from sqlalchemy.orm import Session

    from db.reservations.request import Request

_Key = TypeVar("_Key", int, str)


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look, without any lock, says about a batch.

    `live` are the holds that orders have already, `refused` the answers by place in the batch, `waiting` those of these
    requests for which only units are missing, `served` the requests to take by order, `variants` the rows of all that
    are named, `units` what is taken by ascending variant, `short` those of variants with too few units free to sell,
    and `own_due` the holds that the orders themselves have just lost.
    """

    live: dict[str, Row[Any]] = field(default_factory=dict)
    refused: dict[int, HarborError] = field(default_factory=dict)
    waiting: dict[int, Request] = field(default_factory=dict)
    served: dict[str, Request] = field(default_factory=dict)
    variants: dict[int, Row[Any]] = field(default_factory=dict)
    units: dict[int, int] = field(default_factory=dict)
    short: dict[int, int] = field(default_factory=dict)
    own_due: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of those that the look would have served: holds that were made, and who was beaten to the units."""

    made: dict[str, Row[Any]] = field(default_factory=dict)
    beaten: dict[str, HarborError] = field(default_factory=dict)


# ---- who can be served -----------------------------------------------------------------------------------------------

# `variant_id + 0` keeps the planner from the index on variants, here and wherever due holds of variants are asked for:
# the lines of the few holds that are due are found by their key. A hot variant has most of all lines, and where the
# average one has few, the planner would read all of those for each sold-out buyer: 950 ms instead of 8 (measured).
_DUE_UNITS = text("""
SELECT variant_id, sum(qty - released_qty)::bigint AS qty FROM stock_reservation_lines
 WHERE variant_id + 0 = ANY (CAST(:variant_ids AS bigint[])) AND reservation_id = ANY (ARRAY(
   SELECT id FROM stock_reservations WHERE state = 'held' AND expires_at <= statement_timestamp())) GROUP BY variant_id
""")


def due_units(session: Session, variant_ids: Iterable[int]) -> dict[int, int]:
    """Return variant id to the units of due holds."""
    rows = session.execute(_DUE_UNITS, {"variant_ids": list(variant_ids)})
    return {row.variant_id: row.qty for row in rows}


def serve(
    wishes: Mapping[_Key, Request], variants: Mapping[int, Row[Any]], left: dict[int, int]
) -> tuple[dict[str, Request], dict[_Key, HarborError]]:
    """Give what is `left` to one request after the other; return those that are served and those that are refused."""
    served: dict[str, Request] = {}
    refused: dict[_Key, HarborError] = {}
    for key, wish in wishes.items():
        if wish.order_id in served:
            continue  # The hold that it gets is the answer to this one too.
        if refusal := _refusal(wish, variants, left):
            refused[key] = refusal
        else:
            served[wish.order_id] = wish
            left.update({one: left[one] - qty for one, qty in wish.lines.items()})
    return served, refused


def _refusal(wish: Request, variants: Mapping[int, Row[Any]], left: Mapping[int, int]) -> HarborError | None:
    if unknown := [one for one in wish.lines if one not in variants]:
        return VariantNotFound(variant_ids=unknown)
    if archived := [one for one in wish.lines if variants[one].archived]:
        return VariantArchived(variant_ids=archived)
    if short := [one for one, qty in wish.lines.items() if left[one] < qty]:
        return InsufficientStock(order_id=wish.order_id, variant_ids=short)
    return None


def units_of(wishes: Iterable[Request]) -> dict[int, int]:
    """Return all units that requests take together, by ascending variant id."""
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

_UNMAKE = text("DELETE FROM stock_reservations WHERE id = ANY (CAST(:reservation_ids AS bigint[]))")

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


def take(session: Session, seen: Seen) -> Taken | None:
    """Make the holds; or write nothing, keep no lock and return None: others have changed what was seen, look again."""
    if not seen.served:
        return Taken()
    with session.begin_nested() as savepoint:
        taken = _try(session, seen)
        if taken is None or not taken.made:
            savepoint.rollback()
    return taken


def _try(session: Session, seen: Seen) -> Taken | None:
    freed = reclaim(session, seen.own_due, seen.short) if seen.own_due or seen.short else {}
    made = _make_holds(session, seen.served)
    if len(made) < len(seen.served):
        return None
    stock = lock_variants(session, freed.keys() | seen.units.keys())
    give_back(session, freed, locked=True)
    left = {one: qty + freed.get(one, 0) for one, qty in stock.items()}
    served, beaten = serve(seen.served, seen.variants, left)
    if beaten:
        missing = units_of(seen.served[order_id] for order_id in beaten)
        if due_units(session, missing) or _somebody_could_follow(seen, left):
            return None
        session.execute(_UNMAKE, {"reservation_ids": [made.pop(order_id).id for order_id in beaten]})
    if served and not _take_units(session, served, made):
        return None
    return Taken(made, beaten)


def _somebody_could_follow(seen: Seen, left: Mapping[int, int]) -> bool:
    """Return whether the look has refused a request for the sake of one that is now refused itself."""
    stock = {one: row.stock_qty for one, row in seen.variants.items()}
    return bool(serve(seen.waiting, seen.variants, stock | dict(left))[0])


def _make_holds(session: Session, served: Mapping[str, Request]) -> dict[str, Row[Any]]:
    ordered = [wish for _, wish in sorted(served.items())]
    told = {
        "order_ids": [wish.order_id for wish in ordered],
        "request_hashes": [wish.request_hash for wish in ordered],
        "holds": [wish.hold for wish in ordered],
        "max_holds": [wish.max_hold for wish in ordered],
    }
    return {row.order_id: row for row in session.execute(_HOLDS, told)}


def _take_units(session: Session, served: Mapping[str, Request], made: Mapping[str, Row[Any]]) -> bool:
    lines = [(made[order_id].id, *line) for order_id, wish in served.items() for line in wish.lines.items()]
    holds, variants, qtys = (list(column) for column in zip(*lines, strict=True))
    units = units_of(served.values())
    told: dict[str, list[int]] = {"variant_ids": list(units), "qtys": list(units.values())}
    told |= {"line_holds": holds, "line_variants": variants, "line_qtys": qtys}
    return cast("CursorResult[Any]", session.execute(_TAKE, told)).rowcount == len(lines)
