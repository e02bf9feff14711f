from __future__ import annotations

import os
import re
import shlex
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from db import inventory
from db.reservations import Hold
from db.session import transaction
from tests.broker import own_broker
from tests.db.holds import extended, hold_in, kept, many_due, paid, reserved, state_of
from tests.factories import make_variant, make_variants, stock_of
from tests.processes import run

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor

pytestmark = pytest.mark.usefixtures("database")


def test_no_holds_are_said_to_be_none(harbor: Harbor) -> None:
    assert harbor("reservations", "list").out == "No holds.\n"
    assert harbor("reservations", "list", "--json").json() == []


def test_holds_are_listed_newest_first(harbor: Harbor) -> None:
    first, second = make_variants(2, stock=10)
    older = reserved("order-1", {first: 2})
    newer = reserved("order-2", {first: 1, second: 3})

    listed = harbor("reservations", "list", "--json").json()
    table = harbor("reservations", "list")

    assert listed[0] == {
        "id": newer.id,
        "order_id": "order-2",
        "state": "held",
        "due": False,
        "created_at": listed[0]["created_at"],
        "expires_at": newer.expires_at.isoformat(),
        "resolved_at": None,
        "lines": 2,
        "units": 4,
    }
    assert listed[1]["id"] == older.id
    assert table.code == 0
    assert table.out.index("order-2") < table.out.index("order-1")


@pytest.mark.parametrize(
    ("options", "orders"),
    [
        (["--state", "confirmed"], ["confirmed"]),
        (["--state", "held"], ["due", "held"]),
        (["--due"], ["due"]),
        (["--order", "released"], ["released"]),
        (["--order", "released", "--due"], []),
        (["--limit", "2"], ["due", "released"]),
    ],
)
def test_holds_are_listed_by_what_they_are(harbor: Harbor, options: list[str], orders: list[str]) -> None:
    variant_id = make_variant(stock=10)
    for state in ("held", "confirmed", "expired", "released", "due"):
        hold_in(state, state, {variant_id: 1})

    listed = harbor("reservations", "list", *options, "--json").json()

    assert [hold["order_id"] for hold in listed] == orders


def test_a_page_says_how_to_get_the_next(harbor: Harbor) -> None:
    many_due(5, {make_variant(): 1})
    everything = [hold["id"] for hold in harbor("reservations", "list", "--json").json()]

    first = harbor("reservations", "list", "--limit", "3")
    hint = first.out.rstrip().rsplit("\n", 1)[-1]
    rest = harbor("reservations", "list", "--limit", "3", *hint.split()[-2:], "--json").json()
    last = harbor("reservations", "list", "--limit", "3", *hint.split()[-2:])

    assert hint == f"There may be more: the same command with --after {everything[2]}"
    assert [hold["id"] for hold in rest] == everything[3:]
    assert "--after" not in last.out


@pytest.mark.parametrize(
    "options", [["--limit", "0"], ["--limit", "1001"], ["--after", "0"], ["--order", ""], ["--order", "x" * 201]]
)
def test_a_list_refuses_what_is_out_of_range(harbor: Harbor, options: list[str]) -> None:
    answer = harbor("reservations", "list", *options)

    assert answer.code == 1
    assert answer.err.startswith(f"harbor: {options[0].strip('-').replace('order', 'order_id')} must")


def test_an_order_id_cannot_steer_the_terminal(harbor: Harbor) -> None:
    reserved("order\x1b[2J[red]", {make_variant(stock=1): 1})

    answer = harbor("reservations", "list")

    assert "order\\x1b[2J[red]" in answer.out


def test_a_hold_is_shown_with_its_lines(harbor: Harbor) -> None:
    first, second = make_variants(2, stock=10)
    hold = reserved("order-1", {first: 2, second: 3})

    shown = harbor("reservations", "show", hold.id, "--json").json()
    text = harbor("reservations", "show", hold.id)

    assert [(line["variant_id"], line["qty"], line["released_qty"]) for line in shown["lines"]] == [
        (first, 2, 0),
        (second, 3, 0),
    ]
    assert shown["order_id"] == "order-1"
    assert shown["max_expires_at"] > shown["expires_at"]
    assert all(line["sku"] in text.out for line in shown["lines"])


@pytest.mark.parametrize(
    ("state", "can", "says"),
    [
        ("held", ["confirm", "extend", "release"], "harbor reservations release"),
        ("due", ["expire"], "harbor reservations expire"),
        ("confirmed", ["take_back"], "payment-1"),
        ("released", [], "released"),
        ("expired", [], "expired"),
    ],
)
def test_a_hold_says_what_can_be_done_with_it(harbor: Harbor, state: str, can: list[str], says: str) -> None:
    reservation_id = hold_in(state, "order-1", {make_variant(stock=1): 1})

    shown = harbor("reservations", "show", reservation_id, "--json").json()
    text = harbor("reservations", "show", reservation_id)

    assert shown["can"] == can
    assert says in text.out


def test_a_hold_says_how_far_it_was_and_can_be_extended(harbor: Harbor) -> None:
    hold = reserved("order-1", {make_variant(stock=1): 1})
    before = harbor("reservations", "show", hold.id).out
    for minutes in (20, 30):
        extended(hold.id, timedelta(minutes=minutes))
    twice = harbor("reservations", "show", hold.id).out
    extended(hold.id, timedelta(days=1))
    at_its_end = harbor("reservations", "show", hold.id)
    most = harbor("reservations", "show", hold.id, "--json").json()

    assert "Extended" not in before
    assert "Extended     2 times\n" in twice
    assert f"harbor reservations extend {hold.id} --minutes 15" in twice.replace("harbor'", "harbor")
    assert most["expires_at"] == most["max_expires_at"]
    assert f"Maximum      {datetime.fromisoformat(most['max_expires_at']):%Y-%m-%d %H:%M:%S}Z" in at_its_end.out
    assert most["can"] == ["confirm", "release"]


def test_a_hold_that_was_revived_says_which_one_was_paid_for(harbor: Harbor) -> None:
    ended = hold_in("released", "order-1", {make_variant(stock=1): 1})
    paid_late = paid(ended)
    assert isinstance(paid_late, Hold)

    answer = harbor("reservations", "show", paid_late.id)

    assert f"Revived from {ended}\n" in answer.out


def test_the_commands_that_a_hold_shows_work_as_shown(harbor: Harbor, servers: dict[str, str]) -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 3})
    shown = harbor("reservations", "show", hold.id).out
    confirm, extend, release, keep = re.findall(r"`([^`]+)`", shown)

    with own_broker(servers) as broker:
        called = run(["sh", "-c", confirm], {**os.environ, "HARBOR_BROKER_URL": broker.url})
        assert (called.returncode, broker.lengths()) == (0, {"expiry": 1})
    for command in (extend, f"{release} {keep}", release):
        assert harbor(*shlex.split(command)[1:]).code == 0

    assert state_of(hold.id) == "released"


def test_a_list_counts_what_a_hold_still_has(harbor: Harbor) -> None:
    first, second = make_variants(2, stock=10)
    hold = reserved("order-1", {first: 5, second: 3})
    kept(hold.id, {first: 2})

    (listed,) = harbor("reservations", "list", "--json").json()

    assert (listed["lines"], listed["units"]) == (1, 2)


def test_everything_due_is_expired(harbor: Harbor) -> None:
    variant_id = make_variant()
    many_due(700, {variant_id: 1})

    answer = harbor("reservations", "expire", "--json")

    assert answer.json() == {"expired": 700, "finished": True}
    assert stock_of(variant_id) == 700
    assert harbor("reservations", "expire").out == "0 holds expired; nothing else is due.\n"


def test_no_more_are_expired_than_was_said(harbor: Harbor) -> None:
    variant_id = make_variant()
    many_due(5, {variant_id: 1})

    answer = harbor("reservations", "expire", "--limit", 2)

    assert answer.out == "2 holds expired, and there may be more.\n"
    assert stock_of(variant_id) == 2
    assert harbor("reservations", "expire", "--limit", 0).code == 1


def test_what_the_commands_do_adds_up(harbor: Harbor) -> None:
    variant_id = make_variant(stock=9)
    many_due(3, {variant_id: 1})
    held = reserved("order-1", {variant_id: 4}).id

    harbor("reservations", "release", held)
    harbor("reservations", "expire")

    assert inventory.reconcile().broken == []
    with transaction() as session:
        assert session.get_one(inventory.Variant, variant_id).stock_qty == 12
