"""What a caller asks of `reserve` and `reserve_many`, checked before the first statement."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from db.checks import checked_id, checked_qty, checked_text
from db.errors import InvalidHold, InvalidLines, TooManyVariants, shown
from db.reservations.hold import DEFAULT_HOLD, DEFAULT_MAX_HOLD

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from db.errors import HarborError

MAX_VARIANTS: Final = 1_000
LONGEST_MAX_HOLD: Final = timedelta(days=30)  # Units that are held longer are not held but sold.


@dataclass(frozen=True, slots=True)
class HoldRequest:
    """One wish of many, for `reserve_many`: the arguments that `reserve` takes. It is checked there and not here."""

    order_id: str
    lines: Mapping[int, int]
    hold: timedelta = DEFAULT_HOLD
    max_hold: timedelta = DEFAULT_MAX_HOLD


@dataclass(frozen=True, slots=True)
class Request:
    """An order's wish: `lines` maps variant ids, ascending, to units; `request_hash` tells two wishes apart."""

    order_id: str
    lines: dict[int, int]
    hold: timedelta
    max_hold: timedelta
    request_hash: bytes

    @classmethod
    def checked(cls, order_id: object, lines: object, hold: object, max_hold: object) -> Self:
        """Return the request. Raises the InvalidInput that names the first field which is wrong."""
        order = checked_text("order_id", order_id)
        if isinstance(lines, Mapping) and len(lines) > MAX_VARIANTS:
            raise TooManyVariants(order_id=order, count=len(lines), limit=MAX_VARIANTS)
        wanted = checked_lines(lines, partial(InvalidLines, order_id=order))
        most = _checked_duration(order, "max_hold", max_hold, LONGEST_MAX_HOLD)
        return cls(order, wanted, _checked_duration(order, "hold", hold, most), most, hash_of(wanted))

    @property
    def variant_ids(self) -> list[int]:
        """Return the ids of the variants, ascending: the order in which they are locked."""
        return list(self.lines)

    @property
    def qtys(self) -> list[int]:
        """Return the units, in the order of `variant_ids`."""
        return list(self.lines.values())


def checked_lines(lines: object, refuse: Callable[..., HarborError]) -> dict[int, int]:
    """Return `lines` as a dict of variant id to units, ids ascending.

    Raises:
        InvalidId, InvalidQuantity: a variant id or its units are out of range.
        HarborError: what `refuse(problem=..., value=...)` returns, when it is no mapping or empty.
    """
    if not isinstance(lines, Mapping):
        raise refuse(problem="must map variant ids to units", value=shown(lines))
    if not lines:
        raise refuse(problem="must name at least one variant", value=shown(lines))
    checked = {checked_id("variant_id", variant_id): qty for variant_id, qty in lines.items()}
    return {variant_id: checked_qty(variant_id, checked[variant_id]) for variant_id in sorted(checked)}


def duration_problem(value: object, most: timedelta) -> dict[str, object]:
    """Return `problem` and `value` for an error, or nothing when it is a timedelta above zero and up to `most`."""
    if not isinstance(value, timedelta):
        return {"problem": "must be a timedelta", "value": shown(value)}
    if value <= timedelta(0):
        return {"problem": "must be longer than zero", "value": value}
    if value > most:
        return {"problem": f"must be at most {most}", "value": value}
    return {}


def _checked_duration(order_id: str, field: str, value: object, most: timedelta) -> timedelta:
    problem = duration_problem(value, most)
    if problem or not isinstance(value, timedelta):
        raise InvalidHold(field=field, order_id=order_id, **problem)
    return value


def hash_of(lines: Mapping[int, int]) -> bytes:
    """Return what tells the lines of two wishes apart; `lines` has its ids ascending."""
    canonical = ";".join(f"{variant_id}:{qty}" for variant_id, qty in lines.items())
    return hashlib.sha256(canonical.encode()).digest()
