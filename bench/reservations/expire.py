"""Giving back what is due: the sweep that Beat starts, the rival's, and one without bounds.

Promise: after each sweep every due hold has expired once, and every unit is back on sale once.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from statistics import median
from typing import TYPE_CHECKING, Final
from unittest import mock

from bench.measure import Goal, Result, check, ratios, take_turns
from bench.reservations import rival, rows
from bench.reservations.rows import NO_TIMEOUT, PLENTY, Counts
from db import reservations
from db.reservations import expire
from db.session import transaction
from tasks import reservations as tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from bench.reservations.size import Size

VS_ROWS: Final = Goal("expire_vs_rows", "holds/s by the task's sweep, 2 lines each, ÷ rival row by row", 20)
VS_LIMIT: Final = Goal(
    "expire_vs_limit", "holds/s by the task's sweep ÷ its statements once, unbounded; worst batch ≤ 500 ms", 0.5
)

_WORST_BATCH_MS: Final = 500  # A buyer may wait that long for the lock on a variant.
_BUDGET: Final = timedelta(minutes=5)  # Never the limit: every due hold is to be swept.


@dataclass(slots=True)
class _Sweeps:
    """The three ways to sweep, each on due holds of its own kind, with `due` of them for the two set-based ones."""

    due: int
    due_row_by_row: int
    variants: int
    worst_batch_ms: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, size: Size, share: float = 1) -> Self:
        """Return the sweeps of a run, or of the given share of its holds."""
        return cls(int(size.due_holds * share), int(size.due_holds_row_by_row * share), size.variants)

    def sides(self) -> dict[str, Callable[[], float]]:
        """Return the sides in the order of a round: the rival and then the batches sweep the same load of holds."""
        return {"rival": self.row_by_row, "harbor": self.batches, "unbounded": self.unbounded}

    def row_by_row(self) -> float:
        """Load holds for the rival and for the batches after it, and return the rival's holds per second."""
        self._load(self.due_row_by_row + self.due)
        with self._checked("rival", self.due_row_by_row):
            began = time.perf_counter()
            rival.sweep(self.due_row_by_row)
            seconds = time.perf_counter() - began
        return self.due_row_by_row / seconds

    def batches(self) -> float:
        """Sweep what `row_by_row` left by the task's own code and return its holds per second."""
        with self._checked("harbor", self.due):
            began = time.perf_counter()
            swept = tasks.sweep(_BUDGET)
            seconds = time.perf_counter() - began
        self.worst_batch_ms.append(swept.worst_batch_seconds * 1_000)
        check(f"harbor counted {swept.holds} of {self.due} holds", right=swept.finished and swept.holds == self.due)
        return self.due / seconds

    def unbounded(self) -> float:
        """Sweep as many holds by the library's own statements, once, and return the holds per second."""
        self._load(self.due)
        # Its own bound, lifted: a copy of the statements could drift from them.
        with self._checked("unbounded", self.due), mock.patch.object(expire, "MAX_BATCH", self.due):
            began = time.perf_counter()
            with transaction() as session:
                session.execute(NO_TIMEOUT)
                reservations.expire_due(session, self.due)
            seconds = time.perf_counter() - began
        return self.due / seconds

    def _load(self, due: int) -> None:
        rows.load_due_holds(due, rows.load_stock(self.variants, PLENTY))

    @contextmanager
    def _checked(self, side: str, holds: int) -> Iterator[None]:
        """Check that the block expires `holds` holds, the oldest, and gives exactly their units back."""
        before, units = rows.counts(), rows.units_of_oldest_due(holds)
        yield
        after = Counts(before.held_holds - holds, before.held_units - units, before.expired_holds + holds)
        rows.check_counts(side, after)


def expire_due_holds(size: Size) -> list[Result]:
    """Measure the sweep of many due holds in three ways."""
    take_turns(_Sweeps.of(size, size.warm_up_share).sides(), rounds=0, warm_ups=1, unit="holds/s")
    sweeps = _Sweeps.of(size)
    rates = take_turns(sweeps.sides(), rounds=size.expire_rounds, unit="holds/s")
    ours, rival_rate, unbounded_rate = (median(rates[side]) for side in ("harbor", "rival", "unbounded"))
    worst_ms = max(sweeps.worst_batch_ms)
    extra = {"holds_per_s": ours, "worst_batch_ms": worst_ms, "worst_batch_ms_target": _WORST_BATCH_MS}
    return [
        Result(
            VS_ROWS,
            ratios(rates["harbor"], rates["rival"]),
            f"{ours:,.0f} holds/s, rival {rival_rate:,.0f}",
            {**extra, "rival_holds_per_s": rival_rate},
        ),
        Result(
            VS_LIMIT,
            ratios(rates["harbor"], rates["unbounded"]),
            f"{ours:,.0f} holds/s, unbounded {unbounded_rate:,.0f}; worst batch {worst_ms:.0f} ms",
            {**extra, "unbounded_holds_per_s": unbounded_rate},
            also_met=worst_ms <= _WORST_BATCH_MS,
        ),
    ]
