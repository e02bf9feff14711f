"""A shop for the trace: one product and variant per sku, each with less stock than the trace asks for."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

from sqlalchemy import text

from demo.rows import LARGEST_INTEGER

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from demo.trace import Trace

# Enough that more than a third of the real shop's orders find all they want, and little enough that the last orders
# race for what is left.
SHARE_IN_STOCK = (0.6, 0.95)
# Listed and never delivered, as happens in every shop.
NOTHING_IN_STOCK = 0.01

# Units come as `inventory.receive` brings them, stock and movement in one statement, for all skus at once.
_OPEN_SHOP = text("""
WITH told AS (
  SELECT * FROM unnest(CAST(:skus AS text[]), CAST(:cents AS bigint[]), CAST(:units AS bigint[]))
                AS told(sku, cents, units)),
listed AS (
  INSERT INTO products (sku, name, price_cents) SELECT sku, sku, cents FROM told RETURNING id, sku),
made AS (
  INSERT INTO variants (product_id, sku, stock_qty)
  SELECT listed.id, listed.sku, told.units FROM listed JOIN told USING (sku)
  RETURNING id, sku, stock_qty),
received AS (
  INSERT INTO stock_movements (variant_id, kind, qty, reason)
  SELECT id, 'receive', stock_qty, 'opening stock' FROM made WHERE stock_qty > 0)
SELECT sku, id FROM made
""")


def open_shop(session: Session, trace: Trace, seed: int) -> dict[str, int]:
    """List every sku of the trace, bring its stock in, and return the variant id of each sku."""
    units = opening_stock(trace, seed)
    told = {"skus": list(units), "cents": [trace.prices[sku] for sku in units], "units": list(units.values())}
    return {row.sku: row.id for row in session.execute(_OPEN_SHOP, told)}


def opening_stock(trace: Trace, seed: int) -> dict[str, int]:
    """Return the units of each sku to start with: always fewer than its orders ask for, and never below 0.

    A sku whose every customer wants the only unit, or that was only ever returned, starts with none. No sku gets more
    than one delivery can bring, which is 2^31-1 units.
    """
    asked: Counter[str] = Counter()
    for order in trace.orders:
        asked.update(order.lines)
    rng = Random(seed)
    units = {}
    for sku in sorted(trace.prices):
        share = rng.uniform(*SHARE_IN_STOCK) if rng.random() >= NOTHING_IN_STOCK else 0.0
        units[sku] = max(0, min(int(asked[sku] * share), asked[sku] - 1, LARGEST_INTEGER))
    return units
