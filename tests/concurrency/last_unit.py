"""What a buyer does who wants the last unit of each of several variants at the same moment as every other buyer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy.exc import IntegrityError

from db import reservations
from db.errors import InsufficientStock
from db.session import transaction

if TYPE_CHECKING:
    from tests.concurrency.crowd import Member

HELD, SHORT, CHECKED = "held", "short", "refused by the CHECK"


def buy(member: Member, variant_ids: list[int]) -> list[str]:
    """Want one unit of each variant in turn, and return how each attempt ended."""
    return [_attempt(member, variant_id) for variant_id in variant_ids]


def _attempt(member: Member, variant_id: int) -> str:
    member.meet()
    try:
        with transaction() as session:
            reservations.reserve(session, f"order-{member.number}-{variant_id}", {variant_id: 1})
    except InsufficientStock:
        return SHORT
    except IntegrityError:
        return CHECKED
    return HELD
