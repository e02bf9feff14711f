"""What a few dictionaries say must become of holds: whom each call serves, whom it refuses, and what is left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from db.errors import (
    InsufficientStock,
    KeepsTooMuch,
    OrderAlreadyReserved,
    PaymentMismatch,
    PaymentRefInUse,
    PaymentToRefund,
    ReservationConfirmed,
    ReservationExpired,
    ReservationReleased,
    VariantArchived,
)
from db.reservations import RefundReason

NEW: Final = "a new hold"


@dataclass
class Expected:
    """A hold as it must stand, with the units that it has or had at its end; `over` says that its time is."""

    order_id: str
    lines: dict[int, int]
    state: str = "held"
    over: bool = False
    revived_from: int | None = None

    @property
    def open(self) -> bool:
        return self.state == "held" and not self.over

    @property
    def due(self) -> bool:
        return self.state == "held" and self.over

    @property
    def living(self) -> bool:
        return self.state == "confirmed" or self.open


@dataclass
class Model:
    """All holds, all units and all payments, as they must be."""

    received: dict[int, int] = field(default_factory=dict)
    returned: dict[int, int] = field(default_factory=dict)
    archived: set[int] = field(default_factory=set)
    holds: dict[int, Expected] = field(default_factory=dict)
    sales: dict[str, int] = field(default_factory=dict)
    refunds: dict[str, tuple[int, RefundReason]] = field(default_factory=dict)

    def units_in(self, variant_id: int, *states: str, but_due: bool = False) -> int:
        holds = [hold for hold in self.holds.values() if hold.state in states and not (but_due and hold.due)]
        return sum(hold.lines.get(variant_id, 0) for hold in holds)

    def free(self, variant_id: int, *, with_due: bool = False) -> int:
        gone = self.units_in(variant_id, "held", "confirmed", but_due=with_due)
        return self.received[variant_id] + self.returned[variant_id] - gone

    def living_hold_of(self, order_id: str) -> int | None:
        return next((key for key, hold in self.holds.items() if hold.order_id == order_id and hold.living), None)

    def reserve(self, order_id: str, lines: dict[int, int]) -> int | str | type[Exception]:
        """The id of the hold that the order has already, NEW, or why it gets none."""
        living = self.living_hold_of(order_id)
        if living is not None:
            return living if self.holds[living].lines == lines else OrderAlreadyReserved
        if self.archived & lines.keys():
            return VariantArchived
        return InsufficientStock if self.missing(lines) else NEW

    def missing(self, lines: dict[int, int]) -> list[int]:
        """The variants that are not for sale; if all are, those with too few units, the ones of due holds included."""
        short = [one for one, qty in lines.items() if self.free(one, with_due=True) < qty]
        return sorted(self.archived & lines.keys()) or sorted(short)

    def ended(self, reservation_id: int) -> type[Exception] | None:
        """Why a hold cannot be changed any more."""
        hold = self.holds[reservation_id]
        if hold.open:
            return None
        return {"confirmed": ReservationConfirmed, "released": ReservationReleased}.get(hold.state, ReservationExpired)

    def keep(self, reservation_id: int, keep: dict[int, int]) -> type[Exception] | None:
        """Why a hold cannot be made so small."""
        lines = self.holds[reservation_id].lines
        too_much = any(qty > lines.get(one, 0) for one, qty in keep.items())
        return self.ended(reservation_id) or (KeepsTooMuch if too_much else None)

    def confirm(self, reservation_id: int, payment_ref: str) -> type[Exception] | None:
        """Why a hold cannot be sold with this payment."""
        if self.sales.get(payment_ref) == reservation_id:
            return None
        if self.holds[reservation_id].state == "confirmed":
            return PaymentMismatch
        if payment_ref in self.refunds:
            return PaymentToRefund
        if ended := self.ended(reservation_id):
            return ended
        return PaymentRefInUse if payment_ref in self.sales else None

    def pay(self, reservation_id: int, payment_ref: str) -> int | str | RefundReason | type[Exception]:
        """The id of the hold that the payment sells, NEW when that is one for it, or why it has to go back."""
        order_id = self.holds[reservation_id].order_id
        if payment_ref in self.sales or payment_ref in self.refunds:
            return self._paid_before(order_id, payment_ref)
        state = self.holds[reservation_id].state
        if state in {"held", "confirmed"}:
            return reservation_id if state == "held" else RefundReason.PAID_TWICE
        living = self.living_hold_of(order_id)
        if living is not None and self.holds[living].state == "confirmed":
            return RefundReason.PAID_TWICE
        answer = self.reserve(order_id, self.holds[reservation_id].lines)
        if isinstance(answer, type):
            return _REASONS[answer]
        return answer

    def _paid_before(self, order_id: str, payment_ref: str) -> int | RefundReason | type[Exception]:
        sold = self.sales.get(payment_ref)
        paid_for = self.refunds[payment_ref][0] if sold is None else sold
        if self.holds[paid_for].order_id != order_id:
            return PaymentRefInUse
        return self.refunds[payment_ref][1] if sold is None else sold


_REASONS: Final[dict[type[Exception], RefundReason]] = {
    InsufficientStock: RefundReason.SOLD_OUT,
    VariantArchived: RefundReason.NOT_FOR_SALE,
    OrderAlreadyReserved: RefundReason.ORDER_CHANGED,
}
