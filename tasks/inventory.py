"""The books are checked while the shop is open: every unit is on sale, in a hold, or gone for a written reason."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import structlog

from db import inventory
from tasks.declare import task

log = structlog.get_logger()

# Below the five minutes between two ticks, and below the time limit of a task.
RECONCILE_BUDGET: Final = timedelta(minutes=4)


@task("inventory.reconcile", repeatable=True)
def reconcile(after: int = 0) -> None:
    """Report every variant whose units do not add up. Repairs nothing: that is for the one who finds out why.

    What the budget leaves over is the next message's, which begins behind the variant `after`.
    """
    result = inventory.reconcile(budget=RECONCILE_BUDGET, after=after)
    for broken in result.broken:
        log.error(
            "inventory.broken",
            variant_id=broken.variant_id,
            stock_qty=broken.stock_qty,
            held_qty=broken.held_qty,
            moved_qty=broken.moved_qty,
        )
    log.info("inventory.reconciled", checked=result.checked, broken=len(result.broken), next_after=result.next_after)
    if result.next_after is not None:
        reconcile.apply_async((result.next_after,))
