"""How much a run does: in full, or quickly to see that everything works; the numbers of a quick run mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done. `processes` shop at the same time, `seconds` per round; the other numbers are rows."""

    reserve_rounds: int
    expire_rounds: int
    seconds: float
    processes: int
    variants: int
    due_holds: int
    due_holds_row_by_row: int
    warm_up_share: float
    ended_holds: int
    idle_sweeps: int


FULL: Final = Size(
    reserve_rounds=9,
    expire_rounds=5,
    seconds=1.5,  # Short rounds and many of them: what else the machine does then meets both sides alike.
    processes=8,
    variants=2_000,
    due_holds=100_000,
    # A rate does not need more: row by row, 100,000 would take minutes in every round.
    due_holds_row_by_row=1_000,
    warm_up_share=0.05,
    ended_holds=1_000_000,
    idle_sweeps=51,
)
QUICK: Final = Size(
    reserve_rounds=1,
    expire_rounds=1,
    seconds=0.2,
    processes=2,
    variants=100,
    due_holds=1_000,
    due_holds_row_by_row=20,
    warm_up_share=0.1,
    ended_holds=1_000,
    idle_sweeps=5,
)
