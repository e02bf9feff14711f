"""Any file of order lines becomes orders that can be replayed; a bad row is counted and named, never fatal.

There is one way into a `Trace`: `parse`, line by line. `read` brings a file's lines to it and `demo.generate` its own.
Every row of the input ends in exactly one of three places, so nothing is lost silently:
rows = `Trace.lines` + `Trace.lines_skipped` + `len(Trace.malformed)`.
"""

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from demo import rows
from demo.errors import TraceError

# Postage, fees, discounts, samples and hand-made corrections of the Online Retail data set. They are named rather than
# guessed from their shape: C2 (carriage) and gift_0001_20 (a voucher) hold digits while the goods DCGSSBOY hold none,
# and a stranger's product called MUG must not vanish because it looks like POST.
NO_GOODS = frozenset(
    {"ADJUST", "AMAZONFEE", "B", "BANK CHARGES", "C2", "CRUK", "D", "DOT", "M", "PADS", "POST", "S"},
)
VOUCHER_PREFIX = "GIFT_"


@dataclass(frozen=True, slots=True)
class Order:
    """What one order asks for.

    Attributes:
        order_id: As written in the file, 1 to 200 characters.
        ordered_at: The time of its earliest line that sells, in UTC.
        lines: Units by sku, each above 0; a sku that stands in several rows of the order is summed.
    """

    order_id: str
    ordered_at: datetime
    lines: dict[str, int]


@dataclass(frozen=True, slots=True)
class Return:
    """One row with a negative quantity: `qty` units (above 0) of `sku` that came back."""

    order_id: str
    ordered_at: datetime
    sku: str
    qty: int


@dataclass(frozen=True, slots=True)
class Malformed:
    """One row that could not be used: where it stands, the column at fault (or "row"), and why, as a sentence."""

    line: int
    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Trace:
    """What an input asks of the shop, in time order; rows of the same minute keep the input's order.

    Attributes:
        orders: Orders with at least one line that sells.
        returns: Units that came back, one entry per row.
        prices: Pence by sku, for every sku in `orders` and `returns`: the last price above 0, or 0 when there is none.
        lines: Rows used, of orders and returns together.
        skipped: Rows by code, as written, for codes that are no goods.
        malformed: Rows that could not be used, in the input's order.
    """

    orders: tuple[Order, ...]
    returns: tuple[Return, ...]
    prices: dict[str, int]
    lines: int
    skipped: dict[str, int]
    malformed: tuple[Malformed, ...]

    @property
    def lines_skipped(self) -> int:
        """Rows whose code is no goods."""
        return sum(self.skipped.values())


def read(path: Path) -> Trace:
    """Read a CSV file (UTF-8, with or without a BOM) whose first line names at least `rows.COLUMNS`, in any order.

    Raises:
        TraceError: It is not a readable file, is not UTF-8, lacks a column or holds no usable row.
    """
    try:
        if not path.is_file():
            raise TraceError(f"{path} is not a file")
        raw = path.read_bytes()
    except OSError as error:
        raise TraceError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise TraceError(f"{path} is not UTF-8: line {line} holds the byte 0x{raw[error.start]:02x}") from error
    # With newline=None, as for any text file, "\n", "\r\n" and "\r" end a line and nothing else does.
    return parse(io.StringIO(text, newline=None), str(path))


def parse(lines: Iterable[str], name: str) -> Trace:
    """Make a trace of CSV lines, the header first; `name` says in errors what the lines are.

    One line is one row, so a stray quote spoils its own line and not the rows after it. A blank line is no row.

    Raises:
        TraceError: The header is missing or lacks a column, or no row is usable.
    """
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    _, header = next(numbered, (0, ""))
    places = rows.places(header, name)
    draft = _Draft()
    for number, line in numbered:
        try:
            draft.add(rows.cells(line, places))
        except rows.BadRowError as bad:
            draft.malformed.append(Malformed(number, bad.field, bad.reason))
    if not draft.lines:
        raise TraceError(f"{name} has no usable row: {draft.excuse()}")
    return draft.trace()


@dataclass(slots=True)
class _Draft:
    """A trace while its rows come in."""

    orders: dict[str, Order] = field(default_factory=dict)
    returns: list[Return] = field(default_factory=list)
    prices: dict[str, int] = field(default_factory=dict)
    lines: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    malformed: list[Malformed] = field(default_factory=list)

    def add(self, cells: Mapping[str, str]) -> None:
        """Take one row in whole, or raise and leave the draft as it was."""
        order_id = rows.identifier(cells, "order_id")
        sku = rows.identifier(cells, "sku")
        # A fee is no goods whatever else its row says: bad debts (B), for one, have a negative price.
        if not _is_goods(sku):
            self.skipped[sku] += 1
            return
        qty = rows.quantity(cells)
        ordered_at = rows.moment(cells)
        pence = rows.pence(cells)
        if qty > 0:
            self._sell(order_id, ordered_at, sku, qty)
        else:
            self.returns.append(Return(order_id, ordered_at, sku, -qty))
        self.prices[sku] = pence or self.prices.get(sku, 0)
        self.lines += 1

    def _sell(self, order_id: str, ordered_at: datetime, sku: str, qty: int) -> None:
        known = self.orders.get(order_id, Order(order_id, ordered_at, {}))
        total = known.lines.get(sku, 0) + qty
        if total > rows.LARGEST_INTEGER:
            raise rows.BadRowError(
                "qty", f"qty brings sku {rows.quoted(sku)} of this order above {rows.LARGEST_INTEGER}."
            )
        known.lines[sku] = total
        self.orders[order_id] = Order(order_id, min(known.ordered_at, ordered_at), known.lines)

    def excuse(self) -> str:
        """Say what became of the rows when none is usable."""
        text = f"{self.skipped.total()} are no goods, {len(self.malformed)} are malformed"
        if self.malformed:
            first = self.malformed[0]
            text += f" (the first in line {first.line}: {first.reason})"
        return text

    def trace(self) -> Trace:
        """Close the draft; Python's sort is stable, which keeps the input's order within a minute."""
        return Trace(
            orders=tuple(sorted(self.orders.values(), key=lambda order: order.ordered_at)),
            returns=tuple(sorted(self.returns, key=lambda back: back.ordered_at)),
            prices=self.prices,
            lines=self.lines,
            skipped=dict(self.skipped),
            malformed=tuple(self.malformed),
        )


def _is_goods(sku: str) -> bool:
    code = sku.upper()
    return code not in NO_GOODS and not code.startswith(VOUCHER_PREFIX)
