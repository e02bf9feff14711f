"""Every way in which Harbor says no, each as a class of its own.

A class's docstring is its message: the text in braces is filled from the ids that the error is built from, which stay
readable on `error.ids`. Nothing here ever holds a secret, an ORM object or a payload, so an error may always be logged.
"""

from __future__ import annotations

import inspect
import reprlib
from typing import Any, ClassVar

_SHOWN_CHARACTERS = 80  # A message names a bad value; it does not repeat a megabyte of it.


class _Short(reprlib.Repr):
    """A repr that stays short, and is one for every value: Python refuses to write out an integer of 5,000 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = _SHOWN_CHARACTERS

    def repr_int(self, x: int, level: int) -> str:  # noqa: ARG002 - reprlib's own hook
        return repr(x) if x.bit_length() <= 128 else f"an integer of {x.bit_length()} bits"  # noqa: PLR2004


_short = _Short()


def shown(value: object) -> str:
    """Return `value` as a message may show it: its repr, cut to about 80 characters."""
    return _short.repr(value)


class HarborError(Exception):
    """Harbor could not do what was asked.

    `transient` says of a kind that trying again later may help; a job that raises another one is dead at once.
    """

    transient: ClassVar[bool] = False

    def __init__(self, **ids: Any) -> None:
        self.ids = ids
        message = inspect.cleandoc(type(self).__doc__ or "").split("\n\n", 1)[0].replace("\n", " ")
        super().__init__(message.format(**{key: _readable(value) for key, value in ids.items()}))

    def __reduce__(self) -> tuple[Any, ...]:
        """Rebuild from the ids: a worker's child hands errors to its parent by copying them."""
        return _rebuild, (type(self), self.ids)


def _rebuild(kind: type[HarborError], ids: dict[str, Any]) -> HarborError:
    return kind(**ids)


def _readable(value: object) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value)
        listed = ", ".join(str(item) for item in items[:10])
        return f"{listed} and {len(items) - 10} more" if len(items) > 10 else listed  # noqa: PLR2004 - ten can be read
    return str(value)


# ---- settings and sessions -------------------------------------------------------------------------------------------


class SettingsError(HarborError):
    """{variable} {problem}."""


class SecondTransaction(HarborError):
    """Task {task} opened a second transaction(); it has one, unless it is declared with repeatable=True.

    One transaction is what lets a task's effect and its completion commit together; a task that is safe to run again
    from its start may have several.
    """


class InvalidTask(HarborError):
    """Task {task} {problem}."""


class InvalidArgument(HarborError):
    """Task {task} was given an ORM object as argument {argument}; pass its primary key instead."""


# ---- bad input -------------------------------------------------------------------------------------------------------


class InvalidInput(HarborError):
    """{field} {problem}, and was {value}."""


class InvalidId(InvalidInput):
    """{field} must be an integer from 1 to 9223372036854775807, and was {value}."""


class InvalidText(InvalidInput):
    """{field} {problem}, and was {value}."""


class InvalidQuantity(InvalidInput):
    """{field} of variant {variant_id} must be an integer {range}, and was {value}."""


class InvalidLines(InvalidInput):
    """lines of order {order_id} {problem}, and was {value}."""


class TooManyVariants(InvalidInput):
    """Order {order_id} names {count} variants; one hold covers at most {limit}."""


class InvalidHold(InvalidInput):
    """{field} of order {order_id} {problem}, and was {value}."""


class InvalidExtension(InvalidInput):
    """{field} for reservation {reservation_id} {problem}, and was {value}."""


class InvalidWait(InvalidInput):
    """{field} for variant {variant_id} {problem}, and was {value}."""


class InvalidKeep(InvalidInput):
    """keep of reservation {reservation_id} {problem}, and was {value}."""


class InvalidRequest(InvalidInput):
    """requests[{place}] must be a HoldRequest, and was {value}."""


class InvalidRequests(InvalidInput):
    """requests {problem}, and was {value}."""


class InvalidBudget(InvalidInput):
    """{field} must be a timedelta or None, and was {value}."""


class InvalidState(InvalidInput):
    """{field} must be one of {states}, and was {value}."""


class InvalidLimit(InvalidInput):
    """{field} must be an integer from 1 to {most}, and was {value}."""


class InvalidAge(InvalidInput):
    """{field} must be a time of 0 to 36500 days, and was {value}."""


class InvalidRate(InvalidInput):
    """{field} must be a number from {least} to {most}, and was {value}."""


class InvalidJob(InvalidInput):
    """Job {task}: {field} {problem}."""


class InvalidSchedule(InvalidInput):
    """Schedule {name}: {field} {problem}."""


# ---- jobs ------------------------------------------------------------------------------------------------------------


class JobNotFound(HarborError):
    """Job {task_id} does not exist."""


class JobNotMoved(HarborError):
    """Job {task_id} is {state}, and only one that is {wanted} can be {done}."""


class JobHasSuccessor(HarborError):
    """Job {task_id} cannot be tried again: job {live_task_id} with the same dedupe_key has not ended yet."""


class JobCancelled(HarborError):
    """Job {task_id} was asked to stop."""


class JobLeaseLost(HarborError):
    """Job {task_id} is no longer this worker's: its lease ran out, and it was given to another or has ended."""


class QueueNotFound(HarborError):
    """Queue {queue} does not exist; there are {queues}."""


# ---- schedules -------------------------------------------------------------------------------------------------------


class ScheduleNotFound(HarborError):
    """Schedule {name} does not exist."""


class ScheduleExists(HarborError):
    """Schedule {name} exists already; remove it first, or choose another name."""


class ScheduleDeclared(HarborError):
    """Schedule {name} is declared in celeryconfig.beat_schedule: take it out there, or pause it."""


# ---- inventory -------------------------------------------------------------------------------------------------------


class ProductNotFound(HarborError):
    """Product {product_id} does not exist."""


class ProductHasHolds(HarborError):
    """Product {product_id} cannot be deleted: reservations {reservation_ids} name its variants. Archive it instead."""


class VariantNotFound(HarborError):
    """Variant {variant_ids} does not exist."""


class VariantArchived(HarborError):
    """Variant {variant_ids} belongs to an archived product and is not for sale."""


class StockTooLow(HarborError):
    """Variant {variant_id} cannot change by {change}: it has {stock_qty} units and never goes below zero."""


# ---- reservations ----------------------------------------------------------------------------------------------------


class InsufficientStock(HarborError):
    """Order {order_id} cannot be reserved: variant {variant_ids} has too few units free to sell."""


class VariantBusy(HarborError):
    """Variant {variant_id} has more buyers at this moment than can be served in time; try again."""

    transient = True


class OrderAlreadyReserved(HarborError):
    """Order {order_id} is held by reservation {reservation_id} for other lines; release that one first."""


class OrderContended(HarborError):
    """Order {order_id} cannot be reserved now: others keep changing its hold or its units; try again."""

    transient = True


class ReservationNotFound(HarborError):
    """Reservation {reservation_id} does not exist."""


class ReservationResolved(HarborError):
    """Reservation {reservation_id} has already ended."""


class ReservationExpired(ReservationResolved):
    """Reservation {reservation_id} has expired: its time is over."""


class ReservationReleased(ReservationResolved):
    """Reservation {reservation_id} has been released; its units went back on sale."""


class ReservationConfirmed(ReservationResolved):
    """Reservation {reservation_id} has been confirmed; its units are sold. A return is `inventory.take_back`."""


class KeepsTooMuch(HarborError):
    """Reservation {reservation_id} cannot keep that much: it has fewer units of variant {variant_ids}."""


class PaymentMismatch(ReservationConfirmed):
    """Reservation {reservation_id} has been confirmed with another payment; refund this one."""


class PaymentRefInUse(HarborError):
    """Reservation {reservation_id} cannot be confirmed: its payment_ref was already used for reservation {other_id}."""


class WrongIsolation(HarborError):
    """A payment is decided in a transaction that is read committed, and this one is {level}."""


class PaymentToRefund(HarborError):
    """Reservation {reservation_id} cannot be confirmed with a payment that has to be refunded."""
