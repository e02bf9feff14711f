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

from bench import database, reservations
from bench.measure import CheckFailedError, Measurement, Result, rounded

if TYPE_CHECKING:
    from collections.abc import Sequence

_BENCHES: Final = {"reservations": reservations}

_EPILOG: Final = """\
examples:
  python -m bench reservations --json bench.json     everything; a few minutes on two cores
  python -m bench reservations --only expire_idle_ms one key
  python -m bench reservations --quick               does it work? seconds; the numbers mean nothing

Each key is one number: Harbor's speed divided by a rival's in the same run (a ratio, more is better), or milliseconds
(less is better). The sides take turns; the median of the rounds is reported, with the slowest and fastest round. After
each round the database is checked: a side that oversold, lost or doubled a unit gets no number.

The servers are those of HARBOR_DATABASE_URL, HARBOR_BROKER_URL and HARBOR_CACHE_URL, or embedded ones when none is set.
The bench makes a database of its own there and drops it at the end.

exit code: 0 measured; 1 a check failed, or a target was missed with --enforce; 2 wrong arguments
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a bench as the command line says and return the exit code."""
    told = _parser().parse_args(arguments)
    console = Console()
    if told.list:
        console.print(_goals())
        return 0
    bench = _BENCHES[told.name]
    chosen = [each for each in bench.MEASUREMENTS if not told.only or set(told.only) & _keys(each)]
    size = bench.QUICK if told.quick else bench.FULL
    with database.fresh():
        machine = _machine()
        results, failed = _measure(chosen, size, only=told.only)
    if told.json:
        _write(told.json, machine, results, failed, quick=told.quick)
    console.print(_table(results))
    for key, problem in failed.items():
        console.print(f"[red]{key}: no number, a check failed.[/] ", end="")
        console.print(problem, markup=False)
    missed = any(not result.met for result in results)
    return 1 if failed or (told.enforce and missed) else 0
