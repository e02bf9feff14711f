"""One line of CSV becomes typed cells, or an error that names the column at fault and says why in a sentence."""

import csv
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from demo.errors import TraceError

COLUMNS = ("order_id", "sku", "qty", "ordered_at", "unit_price")

# PostgreSQL's integer: quantities and pence are stored in it.
LARGEST_INTEGER = 2**31 - 1
# `reserve` takes order ids up to this length; a sku gets the same bound so that its unique index can hold it.
LONGEST_ID = 200
# A reason quotes the cell it is about, and a cell can be as long as the file.
LONGEST_QUOTE = 40


class BadRowError(Exception):
    """A row cannot be used."""

    def __init__(self, column: str, reason: str) -> None:
        super().__init__(column, reason)
        self.field = column
        self.reason = reason


def places(header: str, name: str) -> dict[str, int]:
    """Find where each of our columns stands in a header; `name` says in errors whose it is. Raises TraceError."""
    if not header:
        raise TraceError(f"{name} is empty")
    try:
        titles = [title.strip() for title in _split(header)]
    except csv.Error as error:
        raise TraceError(f"{name} has a header that is no CSV: {error}") from error
    missing = [column for column in COLUMNS if column not in titles]
    if missing:
        raise TraceError(f"{name} has no column {', '.join(missing)} in its header")
    doubled = [column for column in COLUMNS if titles.count(column) > 1]
    if doubled:
        raise TraceError(f"{name} has more than one column {', '.join(doubled)} in its header")
    return {column: titles.index(column) for column in COLUMNS}


def _split(line: str) -> list[str]:
    return next(csv.reader([line], strict=True))


def cells(line: str, places: Mapping[str, int]) -> dict[str, str]:
    """Find the cells of our columns in one line. Raises BadRowError."""
    try:
        found = _split(line)
    except csv.Error as error:
        raise BadRowError("row", f"The row is no CSV: {error}.") from error
    missing = [column for column, place in places.items() if place >= len(found)]
    if missing:
        raise BadRowError(missing[0], f"The row ends before {' and '.join(missing)}.")
    return {column: found[place].strip() for column, place in places.items()}


def identifier(cells: Mapping[str, str], column: str) -> str:
    """Return an order id or a sku, 1 to 200 characters that PostgreSQL can store. Raises BadRowError."""
    cell = cells[column]
    if not cell:
        raise BadRowError(column, f"{column} is empty.")
    if len(cell) > LONGEST_ID:
        raise BadRowError(column, f"{column} has {len(cell)} characters; {LONGEST_ID} are the most.")
    if "\0" in cell:
        raise BadRowError(column, f"{column} {quoted(cell)} holds a NUL, which PostgreSQL cannot store.")
    return cell


def quantity(cells: Mapping[str, str]) -> int:
    """Return the units of a row, below 0 for a return and never 0. Raises BadRowError."""
    cell = cells["qty"]
    if not re.fullmatch(r"[+-]?[0-9]+", cell):
        raise BadRowError("qty", f"qty {quoted(cell)} is not a whole number.")
    # The length is looked at first because int() refuses thousands of digits with an error of its own.
    if len(cell.lstrip("+-0")) > len(str(LARGEST_INTEGER)) or abs(int(cell)) > LARGEST_INTEGER:
        raise BadRowError("qty", f"qty {quoted(cell)} is beyond {LARGEST_INTEGER}.")
    qty = int(cell)
    if not qty:
        raise BadRowError("qty", "qty is 0: the row neither sells nor returns a unit.")
    return qty


def moment(cells: Mapping[str, str]) -> datetime:
    """Return when a row was ordered, in UTC. Raises BadRowError."""
    cell = cells["ordered_at"]
    try:
        told = datetime.fromisoformat(cell)
        # A time without a zone is taken as UTC, never as the zone of the machine that happens to replay it.
        return told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    except (ValueError, OverflowError):  # Overflow: an offset that leads out of the years 1 to 9999.
        raise BadRowError("ordered_at", f"ordered_at {quoted(cell)} is not an ISO 8601 time.") from None


def pence(cells: Mapping[str, str]) -> int:
    """Return the price of one unit in pence, 0 or more. Raises BadRowError."""
    cell = cells["unit_price"]
    try:
        pounds = Decimal(cell)
    except InvalidOperation:
        raise BadRowError("unit_price", f"unit_price {quoted(cell)} is not a number.") from None
    if not pounds.is_finite():
        raise BadRowError("unit_price", f"unit_price {quoted(cell)} is not a finite number.")
    if pounds < 0:
        raise BadRowError("unit_price", f"unit_price {quoted(cell)} is negative.")
    # Compared in pounds before any arithmetic: 1E+999999 is a fine Decimal and an int that fills the memory.
    if pounds > Decimal(LARGEST_INTEGER) / 100:
        raise BadRowError("unit_price", f"unit_price {quoted(cell)} is above {LARGEST_INTEGER} pence.")
    return int((pounds * 100).to_integral_value(ROUND_HALF_UP))


def quoted(cell: str) -> str:
    """Return a cell as a reason may quote it."""
    return repr(cell if len(cell) <= LONGEST_QUOTE else cell[:LONGEST_QUOTE] + "…")
