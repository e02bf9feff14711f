"""The demo's result: a table for people, JSON for scripts, and the sentences that make it a failure."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from demo.audit import Audit
    from demo.ledger import Jobs, Ticks
    from demo.trace import Trace

LAG_TARGET_SECONDS: Final = 6
# What must be 0, and what it means when it is not.
BROKEN: Final = {
    "oversold_units": "{} units were sold or held that were never there.",
    "unreturned_units": "{} units of ended holds did not come back.",
    "unreconciled_variants": "{} variants have units that do not add up.",
    "deadlocks": "PostgreSQL broke up {} deadlocks.",
    "jobs_lost": "{} follow-ups were committed and never done.",
    "jobs_twice": "{} follow-ups were done more than once.",
    "letters_lost": "{} letters were committed and never sent.",
    "letters_twice": "{} letters were sent more than once.",
    "jobs_unasked": "{} follow-ups were done of sales that never were.",
    "ticks_missed": "{} ticks were due, and nothing is written of them.",
    "ticks_twice": "{} jobs of schedules belong to no tick.",
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was asked, what the shoppers were told, and what the database says.

    `errors` are answers that nobody expected, with how often each was given. `left_out` are faults that there could not
    be, and why.
    """

    trace: Trace
    counts: Counter[str]
    errors: Counter[str]
    books: Audit
    jobs: Jobs
    ticks: Ticks
    faults: int
    left_out: tuple[str, ...]
    seconds: float
    seed: int
    generated: bool

    def as_json(self) -> dict[str, Any]:
        """Return the result as the JSON file has it; a lag that no hold expired to show is None.

        `refused` are orders of more variants than one hold covers, `late_*` came back when their hold had expired.
        """
        books, told = self.books, self.counts
        return {
            "orders": len(self.trace.orders),
            "lines": self.trace.lines,
            "lines_skipped": self.trace.lines_skipped,
            "malformed": len(self.trace.malformed),
            "returns": told["returns"],
            "holds": books.holds,
            "sold_out": told["sold_out"],
            "refused": told["refused"],
            "confirmed": books.confirmed,
            "late_confirms": told["late_confirms"],
            "released": books.released,
            "late_releases": told["late_releases"],
            "expired": books.expired,
            "oversold_units": books.oversold_units,
            "unreturned_units": books.unreturned_units,
            "unreconciled_variants": books.unreconciled_variants,
            # PostgreSQL counts all of them; what a shopper saw counts even if the server lost its statistics.
            "deadlocks": max(books.deadlocks, told["deadlocks"]),
            **asdict(self.jobs),
            **asdict(self.ticks),
            "job_latency_p50_ms": _rounded(self.jobs.job_latency_p50_ms),
            "job_latency_p99_ms": _rounded(self.jobs.job_latency_p99_ms),
            "shopper_retries": told["retries"],
            "lost_answers": told["lost_answers"],
            "expiry_lag_p50_s": _rounded(books.lag_p50_s),
            "expiry_lag_p99_s": _rounded(books.lag_p99_s),
            "expiry_lag_p99_fault_s": _rounded(books.lag_p99_fault_s),
            "faults": self.faults,
            "faults_left_out": list(self.left_out),
            "seconds": _rounded(self.seconds),
            "seed": self.seed,
            "generated": self.generated,
            "errors": dict(self.errors),
        }

    @property
    def problems(self) -> list[str]:
        """Return what is wrong, a sentence each; the demo succeeded when there is none."""
        result, books, told = self.as_json(), self.books, self.counts
        wrong = [sentence.format(result[key]) for key, sentence in BROKEN.items() if result[key]]
        wrong += [f"Nobody expected, {times} times: {error}" for error, times in self.errors.items()]
        kept = {"holds": books.holds, "confirmed": books.confirmed, "released": books.released}
        return wrong + [
            f"Shoppers were told of {told[name]} {name}, and the database has {count}."
            for name, count in kept.items()
            if count != told[name]
        ]

    @property
    def exit_code(self) -> int:
        """Return 0 when all is well and 1 when not."""
        return 1 if self.problems else 0

    def write(self, path: Path) -> None:
        """Write the result as JSON. Raises OSError."""
        path.write_text(json.dumps(self.as_json(), indent=2) + "\n", encoding="utf-8")

    def table(self) -> Table:
        """Return the result as a table for a terminal."""
        table = Table(title="What happened", title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column(style="dim")
        for section in (self._asked(), self._answered(), self._checked(), self._ran(), self._timed()):
            for key, meaning in section.items():
                name = key.removesuffix("_s").removesuffix("_ms").replace("_", " ")
                table.add_row(name, self._shown(key), meaning)
            table.add_section()
        return table

    def _shown(self, key: str) -> str:
        value = self.as_json()[key]
        if value is None:
            return "none"
        if key in BROKEN:
            return f"[{'bold red' if value else 'green'}]{value:,}[/]"
        if key.endswith("_ms"):
            return f"{value:,.0f} ms"
        return f"{value:.1f} s" if isinstance(value, float) else f"{value:,}"

    def _asked(self) -> dict[str, str]:
        return {
            "orders": "",
            "lines": "of orders and returns together",
            "lines_skipped": "codes that are no goods, like postage",
            "malformed": "rows that cannot be used",
            "returns": "put back on sale",
        }

    def _answered(self) -> dict[str, str]:
        return {
            "holds": "of 3 seconds each",
            "sold_out": "a line was short, so nothing was taken",
            "confirmed": f"and {self.counts['late_confirms']} came too late",
            "released": f"and {self.counts['late_releases']} came too late",
            "expired": "by the sweep, or a buyer who was short",
        } | ({"refused": "more variants than one hold covers"} if self.counts["refused"] else {})

    def _checked(self) -> dict[str, str]:
        return {
            "oversold_units": "sold or held, and never there",
            "unreturned_units": "of ended holds, and not back on sale",
            "unreconciled_variants": "whose units do not add up",
            "deadlocks": "broken up by PostgreSQL",
        }

    def _ran(self) -> dict[str, str]:
        return {
            "jobs_committed": "a follow-up of each sale, with it",
            "jobs_done": "once each: doing one again would show",
            "jobs_lost": "committed, and never done",
            "jobs_twice": "done more than once",
            "letters": "more jobs, many at once before a fault",
            "jobs_recovered": "sent or started again after a fault",
            "ticks_due": "by two Beats",
            "ticks_missed": "of which nothing is written",
            "ticks_twice": "jobs that are no tick's",
            "shopper_retries": f"and {self.counts['lost_answers']} answers to COMMIT were lost",
        }

    def _timed(self) -> dict[str, str]:
        return {
            "job_latency_p50_ms": "from a job's row to its start",
            "job_latency_p99_ms": "outside of the faults",
            "expiry_lag_p50_s": "from the end of a hold to its closing",
            "expiry_lag_p99_s": f"target {LAG_TARGET_SECONDS} s, outside of the faults",
            "expiry_lag_p99_fault_s": "during a fault",
            "faults": "; ".join(self.left_out) or "Redis, PostgreSQL and three kills",
            "seconds": "with starting and checking",
        }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 2)
