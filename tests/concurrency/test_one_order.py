"""One order sent by many at the same moment is one hold: all get the same answer, and the units are taken once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from db import inventory, reservations
from db.reservations import Hold, HoldRequest
from db.session import transaction
from tests.concurrency.crowd import crowd
from tests.concurrency.guards import replace_in_reserve
from tests.db.sql import change, rows
from tests.factories import make_variants, stock_of

if TYPE_CHECKING:
    from tests.concurrency.crowd import Member

pytestmark = pytest.mark.usefixtures("environ")

_SENDERS = 16
_ROUNDS = 8
_STOCK = 1_000
_DEADLINE_SECONDS = 60

_ONE_HOLD = """VALUES (p_order_id, p_request_hash, statement_timestamp() + p_hold, statement_timestamp() + p_max_hold)
    ON CONFLICT (order_id) WHERE state IN ('held', 'confirmed') DO NOTHING"""


def _send(member: Member, variant_ids: list[int], batches: bool) -> list[int]:
    """Send the order of each round and return the hold that each got; every other one sends it in a batch."""
    lines = dict.fromkeys(variant_ids, 2)
    if batches and member.number % 2:
        return [_sent_in_a_batch(member, number, lines) for number in range(_ROUNDS)]
    return [_sent(member, number, lines) for number in range(_ROUNDS)]


def _sent(member: Member, number: int, lines: dict[int, int]) -> int:
    member.meet()
    with transaction() as session:
        return reservations.reserve(session, f"order-{number}", lines).id


def _sent_in_a_batch(member: Member, number: int, lines: dict[int, int]) -> int:
    """Send it behind an order that half of those who send batches have in another place."""
    wanted = [HoldRequest(f"order-{number}", lines), HoldRequest(f"along-{number}", lines)]
    place = member.number % 4 // 2
    member.meet()
    with transaction() as session:
        answers = reservations.reserve_many(session, wanted[::-1] if place else wanted)
    hold = answers[place]
    assert isinstance(hold, Hold)
    return hold.id


def _holds() -> dict[str, list[int]]:
    """The ids of the holds of each order."""
    found: dict[str, list[int]] = {}
    for order_id, reservation_id in rows("SELECT order_id, id FROM stock_reservations WHERE order_id ~ '^order-'"):
        found.setdefault(order_id, []).append(reservation_id)
    return found


def test_an_order_that_16_processes_send_at_once_is_one_hold() -> None:
    variant_ids = make_variants(2, stock=_STOCK)

    with crowd(_SENDERS) as senders:
        answers = senders.all(_send, variant_ids, True, deadline_seconds=_DEADLINE_SECONDS)

    assert _holds() == {f"order-{number}": [told[0]] for number, told in enumerate(zip(*answers, strict=True))}
    assert all(told == answers[0] for told in answers)
    assert [stock_of(variant_id) for variant_id in variant_ids] == [_STOCK - 2 * 2 * _ROUNDS] * 2
    assert inventory.reconcile().broken == []


def test_by_looking_first_instead_of_an_index_it_is_several() -> None:
    variant_ids = make_variants(2, stock=_STOCK)
    replace_in_reserve(
        _ONE_HOLD,
        """SELECT p_order_id, p_request_hash, statement_timestamp() + p_hold, statement_timestamp() + p_max_hold
            WHERE NOT EXISTS (SELECT FROM stock_reservations
                               WHERE order_id = p_order_id AND state IN ('held', 'confirmed'))""",
    )
    change("DROP INDEX uq_stock_reservations_live_order")

    with crowd(_SENDERS) as senders:
        answers = senders.all(_send, variant_ids, False, deadline_seconds=_DEADLINE_SECONDS)

    assert max(len(set(told)) for told in zip(*answers, strict=True)) > 1
    assert max(len(holds) for holds in _holds().values()) > 1
    assert min(stock_of(variant_id) for variant_id in variant_ids) < _STOCK - 2 * _ROUNDS
