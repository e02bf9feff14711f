from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from tests.db.holds import hold_in, paid, reserved
from tests.db.sql import change
from tests.factories import make_variant

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor

pytestmark = pytest.mark.usefixtures("database")


def paid_too_late(payment_ref: str) -> int:
    """Commit a payment of a hold whose units somebody else has meanwhile; return the variant."""
    variant_id = make_variant(stock=1)
    ended = hold_in("released", f"order-of-{payment_ref}", {variant_id: 1})
    reserved(f"faster-than-{payment_ref}", {variant_id: 1})
    paid(ended, payment_ref)
    return variant_id


def test_no_refunds_are_said_to_be_none(harbor: Harbor) -> None:
    assert harbor("reservations", "refunds").out == "No refunds.\n"
    assert harbor("reservations", "refunds", "--json").json() == []


def test_what_has_to_go_back_is_listed_with_its_payment(harbor: Harbor) -> None:
    variant_id = paid_too_late("pay-1")

    (listed,) = harbor("reservations", "refunds", "--json").json()
    text = harbor("reservations", "refunds").out

    assert (listed["payment_ref"], listed["order_id"], listed["reason"]) == ("pay-1", "order-of-pay-1", "sold_out")
    assert listed["variant_ids"] == [variant_id]
    assert re.search(rf"pay-1 +order-of-pay-1 +{listed['reservation_id']} +sold_out +{variant_id} +20", text)


def test_a_page_of_refunds_says_how_to_get_the_next(harbor: Harbor) -> None:
    payments = ["pay-1", "pay of Tom's", "pay-3", "-pay-4", "pay-5"]
    for payment_ref in payments:
        paid_too_late(payment_ref)

    first = harbor("reservations", "refunds", "--limit", 2)
    hint = first.out.rstrip().rsplit("\n", 1)[-1]
    second = harbor("reservations", "refunds", "--limit", 2, *shlex.split(hint.partition("with ")[2]))
    hint = second.out.rstrip().rsplit("\n", 1)[-1]
    last = harbor("reservations", "refunds", "--limit", 2, *shlex.split(hint.partition("with ")[2]))

    pages = [re.findall(r"^ *(-?pay[- ].*?)  ", page.out, re.MULTILINE) for page in (first, second, last)]
    assert pages == [["pay-5", "-pay-4"], ["pay-3", "pay of Tom's"], ["pay-1"]]
    assert "--after" not in last.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--limit", "0"], "limit must be an integer from 1 to 1000, and was 0."),
        (["--after", ""], "after must not be empty, and was not shown."),
        (["--after", "s3cret"], "after must be the payment_ref of a refund, and was not shown."),
    ],
)
def test_a_list_of_refunds_refuses_what_is_out_of_range(harbor: Harbor, options: list[str], says: str) -> None:
    answer = harbor("reservations", "refunds", *options)

    assert (answer.code, answer.err) == (1, f"harbor: {says}\n")


def test_a_payment_cannot_steer_the_terminal(harbor: Harbor) -> None:
    paid_too_late("pay")
    change("UPDATE required_refunds SET payment_ref = E'pay\\x1b[2J'")

    answer = harbor("reservations", "refunds", "--limit", 1)

    assert "\x1b" not in answer.out
    assert "pay\\x1b[2J" in answer.out
