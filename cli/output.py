"""How the commands answer: tables for people and JSON for scripts.

What comes from other services (an order id, a sku) is shown with its control characters escaped, so that it cannot
steer a terminal or forge a line.
"""

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts instead of a table.")]

_ENDLESS_COLUMNS = 100_000
_LEAST_LAST_COLUMNS = 12
_PIPED_COLUMNS = 200  # A pipe has no width; a row that is folded cannot be searched line by line.


def printable(text: str) -> str:
    """Return `text` on one line, with what is not printable escaped as Python writes it."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(value: object) -> str:
    """Return a value as a table shows it: times in UTC to the second, nothing as nothing."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}Z"
    return printable(str(value))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, one_line: bool = False) -> None:
    """Print rows under headings; numbers stand on the right.

    Args:
        columns: the headings.
        rows: their cells.
        one_line: let each row be one line, however wide; a terminal gets the last column cut to what is left of it.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [list(row) for row in rows]
    drawn = Table(box=SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        is_number = bool(cells) and isinstance(cells[0][place], int)
        drawn.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=one_line)
    for row in cells:
        drawn.add_row(*(Text(shown(value)) for value in row))
    width = None if sys.stdout.isatty() else _PIPED_COLUMNS
    if one_line:
        endless = Console(width=_ENDLESS_COLUMNS)
        if sys.stdout.isatty():
            last = drawn.columns[-1]
            last.overflow, last.max_width = "ellipsis", 0
            left = Console().width - endless.measure(drawn).maximum
            last.max_width = max(left, _LEAST_LAST_COLUMNS)
        width = endless.measure(drawn).maximum
    Console(width=width).print(drawn)


def as_json(value: Any) -> None:
    """Print a list or an object; times as ISO 8601."""
    print(json.dumps(value, indent=2, default=_plain))


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} is not for JSON")
