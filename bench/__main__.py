"""`python -m bench NAME`: measure, check, print a table, write JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from rich.console import Console
from rich.table import Table

from bench import database, jobs, reservations
from bench.measure import CheckFailedError, Measurement, Result

if TYPE_CHECKING:
    from collections.abc import Sequence

_BENCHES: Final = {"reservations": reservations, "jobs": jobs}

_EPILOG: Final = """\
examples:
  python -m bench reservations --json bench.json      everything; a few minutes on two cores
  python -m bench reservations --only expire_idle_ms  one key
  python -m bench reservations --quick                does it work? seconds; the numbers mean nothing
  python -m bench jobs --json jobs.json               jobs, beside Celery, Procrastinate and pgqueuer; four minutes
  python -m bench jobs --only end_to_end_vs_celery    with --only, keys that are measured together still are

Each key is one number: Harbor's speed divided by a rival's in the same run, or what something costs; the sign of its
target says whether more is better. The sides take turns; the median of the rounds is reported, with the lowest and the
highest. Each round is checked: a side that oversold, lost or doubled a unit, or a task, gets no number.

The servers are those of HARBOR_DATABASE_URL, HARBOR_BROKER_URL and HARBOR_CACHE_URL, or embedded ones when none is set.
The bench makes a database of its own there and drops it at the end.

exit code: 0 measured; 1 a check failed, or a target was missed with --enforce; 2 wrong arguments
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a bench as the command line says and return the exit code."""
    parser = _parser()
    told = parser.parse_args(arguments)
    console = Console()
    if told.list:
        console.print(_goals())
        return 0
    if told.name is None:
        parser.error(f"say what to measure: {', '.join(_BENCHES)} (or --list)")
    if told.json and not told.json.parent.is_dir():
        parser.error(f"--json {told.json}: there is no such directory")
    bench = _BENCHES[told.name]
    chosen = [each for each in bench.MEASUREMENTS if not told.only or set(told.only) & _keys(each)]
    size = bench.QUICK if told.quick else bench.FULL
    try:
        with database.fresh():
            machine = _machine()
            results, failed = _measure(chosen, size, only=told.only)
    except CheckFailedError as error:
        parser.exit(1, f"bench: {error}\n")
    if told.json:
        _write(told.json, machine, results, failed, quick=told.quick)
    console.print(_table(results))
    for key, problem in failed.items():
        console.print(f"[red]{key}: no number, a check failed.[/] ", end="")
        console.print(problem, markup=False)
    missed = any(not result.met for result in results)
    return 1 if failed or (told.enforce and missed) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure Harbor side by side with what people write instead.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    keys = [goal.key for bench in _BENCHES.values() for each in bench.MEASUREMENTS for goal in each.goals]
    parser.add_argument("name", nargs="?", choices=_BENCHES, help="what to measure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every number, with its rounds, to FILE")
    parser.add_argument(
        "--only", action="append", choices=keys, metavar="KEY", help="measure this key; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="show every key with its target and end")
    parser.add_argument("--quick", action="store_true", help="a smoke run with small numbers")
    parser.add_argument("--enforce", action="store_true", help="exit with 1 when a target is missed")
    return parser


def _keys(measurement: Measurement[Any]) -> set[str]:
    return {goal.key for goal in measurement.goals}


def _measure(
    measurements: Sequence[Measurement[Any]], size: object, *, only: Sequence[str] | None
) -> tuple[list[Result], dict[str, str]]:
    """Return the results, and for each key that has none because a check failed, why."""
    results: list[Result] = []
    failed: dict[str, str] = {}
    for each in measurements:
        wanted = [goal.key for goal in each.goals if not only or goal.key in only]
        print(f"{', '.join(wanted)} …", file=sys.stderr, flush=True)
        try:
            results += [result for result in each.run(size) if result.goal.key in wanted]
        except CheckFailedError as error:
            failed.update(dict.fromkeys(wanted, str(error)))
    return results, failed


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "postgresql": database.server_version(),
        "sqlalchemy": sqlalchemy.__version__,
    }


def _write(
    path: Path, machine: dict[str, Any], results: Sequence[Result], failed: dict[str, str], *, quick: bool
) -> None:
    told = {
        "machine": machine,
        "quick": quick,
        "results": {result.goal.key: result.as_json() for result in results},
        "failed": failed,
    }
    path.write_text(json.dumps(told, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _table(results: Sequence[Result]) -> Table:
    table = Table(title="Harbor, side by side", title_justify="left")
    table.add_column("Key", no_wrap=True)
    for column in ("Value", "Rounds", "Target", "Met", "In numbers"):
        table.add_column(column)
    for result in results:
        goal = result.goal
        table.add_row(
            goal.key,
            goal.shown(result.value),
            f"{min(result.rounds):.3g} to {max(result.rounds):.3g}",
            goal.wanted,
            "[green]yes[/]" if result.met else "[red]no[/]",
            result.note,
        )
    return table


def _goals() -> Table:
    table = Table("Bench", "Key", "What", "Target", title_justify="left")
    for name, bench in _BENCHES.items():
        for goal in [goal for each in bench.MEASUREMENTS for goal in each.goals]:
            table.add_row(name, goal.key, goal.what, goal.wanted)
    return table


if __name__ == "__main__":
    sys.exit(main())
