"""How much a run does: in full, or quickly to see that everything works; the numbers of a quick run mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done: `processes` shop at the same time, `seconds` per round; the others count rounds and rows."""

    reserve_rounds: int
    hot_rounds: int
    seconds: float
    processes: int
    hot_processes: int
    batch: int
    variants: int

    expire_rounds: int
    due_holds: int
    due_holds_row_by_row: int
    warm_up_share: float

    ended_holds: int
    idle_sweeps: int
    growth_rounds: int
    growth_due_holds: int

    worker_rounds: int
    worker_tasks: int
    worker_children: int


FULL: Final = Size(
    reserve_rounds=7,
    hot_rounds=5,
    seconds=1.5,  # Short rounds and many of them: what else the machine does then meets both sides alike.
    processes=8,
    hot_processes=64,
    batch=100,
    variants=2_000,
    expire_rounds=5,
    due_holds=100_000,
    # A rate does not need more: row by row, 100,000 would take minutes in every round.
    due_holds_row_by_row=1_000,
    warm_up_share=0.05,
    ended_holds=1_000_000,
    idle_sweeps=51,
    growth_rounds=5,
    growth_due_holds=20_000,
    worker_rounds=9,
    worker_tasks=500,
    worker_children=2,
)
QUICK: Final = Size(
    reserve_rounds=1,
    hot_rounds=1,
    seconds=0.2,
    processes=2,
    hot_processes=6,
    batch=10,
    variants=100,
    expire_rounds=1,
    due_holds=1_000,
    due_holds_row_by_row=20,
    warm_up_share=0.1,
    ended_holds=1_000,
    idle_sweeps=5,
    growth_rounds=1,
    growth_due_holds=500,
    worker_rounds=1,
    worker_tasks=50,
    worker_children=2,
)
