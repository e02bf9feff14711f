"""The demo's result: a table for people, JSON for scripts, and the sentences that make it a failure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

LAG_TARGET_SECONDS: Final = 6


@dataclass(frozen=True, slots=True)
class Report:
    """Everything the JSON has; its keys are the names of these fields.

    `refused` are orders of more variants than one hold covers, `late_*` came back when their hold had expired,
    `expiry_lag_*` is the time from the end of a hold to its closing: None when no hold expired there, and without those
    that the fault met except in `expiry_lag_p99_fault_s`. `errors` are answers that nobody expected, with how often.
    """

    orders: int
    lines: int
    lines_skipped: int
    holds: int
    sold_out: int
    confirmed: int
    released: int
    expired: int
    oversold_units: int
    unreturned_units: int
    unreconciled_variants: int
    deadlocks: int
    expiry_lag_p50_s: float | None
    expiry_lag_p99_s: float | None
    faults: int
    seconds: float
    malformed: int
    returns: int
    refused: int
    late_confirms: int
    late_releases: int
    expiry_lag_p99_fault_s: float | None
    seed: int
    generated: bool
    errors: dict[str, int]

    @property
    def problems(self) -> list[str]:
        """Return what is wrong, a sentence each; the demo succeeded when there is none."""
        broken = {
            f"{self.oversold_units} units were sold or held that were never there.": self.oversold_units,
            f"{self.unreturned_units} units of ended holds did not come back.": self.unreturned_units,
            f"{self.unreconciled_variants} variants have units that do not add up.": self.unreconciled_variants,
            f"PostgreSQL broke up {self.deadlocks} deadlocks.": self.deadlocks,
        }
        unexpected = [f"{times} × {error}" for error, times in self.errors.items()]
        return [sentence for sentence, count in broken.items() if count] + unexpected

    @property
    def exit_code(self) -> int:
        """Return 0 when all is well and 1 when not."""
        return 1 if self.problems else 0

    def write(self, path: Path) -> None:
        """Write the report as JSON. Raises OSError."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """Return the report as a table for a terminal."""
        table = Table(title="What happened", title_justify="left", show_header=False, min_width=60)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        for section in (self._asked(), self._answered(), self._books(), self._time()):
            for row in section:
                table.add_row(*row)
            table.add_section()
        return table

    def _asked(self) -> list[tuple[str, str, str]]:
        return [
            ("orders", f"{self.orders:,}", f"of {self.lines:,} lines, returns among them"),
            ("lines skipped", f"{self.lines_skipped:,}", "codes that are no goods, such as postage"),
            ("lines malformed", f"{self.malformed:,}", ""),
            ("returns", f"{self.returns:,}", "put back on sale"),
        ]

    def _answered(self) -> list[tuple[str, str, str]]:
        refused = f"and {self.refused} refused: too many variants" if self.refused else "all or nothing"
        return [
            ("holds", f"{self.holds:,}", "of 3 seconds each"),
            ("sold out", f"{self.sold_out:,}", refused),
            ("confirmed", f"{self.confirmed:,}", f"and {self.late_confirms} too late"),
            ("released", f"{self.released:,}", f"and {self.late_releases} too late"),
            ("expired", f"{self.expired:,}", "by the sweep, or by a buyer in need of the units"),
        ]

    def _books(self) -> list[tuple[str, str, str]]:
        books = {
            "oversold units": self.oversold_units,
            "unreturned units": self.unreturned_units,
            "unreconciled variants": self.unreconciled_variants,
            "deadlocks": self.deadlocks,
        }
        return [
            (name, f"[{'red' if count else 'green'}]{count:,}[/]", "must be 0" if count else "as promised")
            for name, count in books.items()
        ]

    def _time(self) -> list[tuple[str, str, str]]:
        return [
            ("expiry lag, median", _seconds(self.expiry_lag_p50_s), "from a hold's end to its closing"),
            ("expiry lag, p99", _seconds(self.expiry_lag_p99_s), f"target {LAG_TARGET_SECONDS} s"),
            ("expiry lag, p99 in the fault", _seconds(self.expiry_lag_p99_fault_s), "while the worker was dead"),
            ("faults", f"{self.faults}", "workers killed with SIGKILL"),
            ("time", _seconds(self.seconds), "with starting and checking"),
        ]


def _seconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.1f} s"
