"""What a caller asks of `reserve`, checked before the first statement."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from db.checks import checked_id, checked_qty, checked_text
from db.errors import InvalidHold, InvalidLines, TooManyVariants, shown

if TYPE_CHECKING:
    from typing import Self

MAX_VARIANTS: Final = 1_000
_LONGEST_MAX_HOLD: Final = timedelta(days=30)  # Units that are held longer are not held but sold.


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
        wanted = _checked_lines(order, lines)
        most = _checked_duration(order, "max_hold", max_hold, _LONGEST_MAX_HOLD)
        return cls(order, wanted, _checked_duration(order, "hold", hold, most), most, _hash(wanted))

    @property
    def variant_ids(self) -> list[int]:
        """Return the ids of the variants, ascending: the order in which they are locked."""
        return list(self.lines)

    @property
    def qtys(self) -> list[int]:
        """Return the units, in the order of `variant_ids`."""
        return list(self.lines.values())


def _checked_lines(order_id: str, lines: object) -> dict[int, int]:
    if not isinstance(lines, Mapping):
        raise InvalidLines(order_id=order_id, problem="must map variant ids to units", value=shown(lines))
    if not lines:
        raise InvalidLines(order_id=order_id, problem="must name at least one variant", value=shown(lines))
    if len(lines) > MAX_VARIANTS:
        raise TooManyVariants(order_id=order_id, count=len(lines), limit=MAX_VARIANTS)
    checked = {checked_id("variant_id", variant_id): qty for variant_id, qty in lines.items()}
    return {variant_id: checked_qty(variant_id, checked[variant_id]) for variant_id in sorted(checked)}


def _checked_duration(order_id: str, field: str, value: object, most: timedelta) -> timedelta:
    if not isinstance(value, timedelta):
        raise InvalidHold(field=field, order_id=order_id, problem="must be a timedelta", value=shown(value))
    if value <= timedelta(0):
        raise InvalidHold(field=field, order_id=order_id, problem="must be longer than zero", value=value)
    if value > most:
        raise InvalidHold(field=field, order_id=order_id, problem=f"must be at most {most}", value=value)
    return value


def _hash(lines: Mapping[int, int]) -> bytes:
    canonical = ";".join(f"{variant_id}:{qty}" for variant_id, qty in lines.items())
    return hashlib.sha256(canonical.encode()).digest()
