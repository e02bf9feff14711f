from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from tests.db.sql import rows
from tests.ledger import lease, make_type, put

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor


@pytest.fixture(autouse=True)
def _types(database: None) -> None:
    make_type(queue="bulk")


def actions() -> list[tuple[Any, ...]]:
    return rows("SELECT actor, action, subject FROM operator_actions ORDER BY id")


def test_a_paused_queue_starts_nothing_until_it_is_resumed(harbor: Harbor) -> None:
    put()

    paused = harbor("queues", "pause", "bulk", "--actor", "ada")
    listed = harbor("queues", "list").out
    while_paused = lease()
    resumed = harbor("queues", "resume", "bulk", "--actor", "bob")

    assert paused.out == "Queue bulk is paused; its limits: paused.\n"
    assert re.search(r"^ bulk +1 +0 +0 +0 +0 +\d+(\.\d)? m?s +paused", listed, re.MULTILINE)
    assert while_paused == []
    assert resumed.out == "Queue bulk goes on; its limits: none.\n"
    assert len(lease()) == 1
    assert actions() == [("ada", "queues.pause", "bulk"), ("bob", "queues.resume", "bulk")]


def test_what_changes_nothing_is_said_and_not_written_down(harbor: Harbor) -> None:
    assert harbor("queues", "resume", "bulk").out == "Queue bulk was not paused; its limits: none.\n"
    assert actions() == []


def test_limits_are_set_one_by_one_and_lifted(harbor: Harbor) -> None:
    harbor("queues", "limit", "bulk", "--max-in-flight", 4, "--actor", "ada")
    both = harbor("queues", "limit", "bulk", "--rate", 0.5, "--actor", "ada")
    one = harbor("queues", "limit", "bulk", "--max-in-flight", "none", "--actor", "ada", "--json").json()

    assert both.out == "Queue bulk is changed; its limits: 4 in flight, 0.5/s.\n"
    assert one == {"queue": "bulk", "paused": False, "max_in_flight": None, "rate_per_second": 0.5}
    assert actions() == [("ada", "queues.limit", "bulk")] * 3
    assert harbor("queues", "list", "--json").json()[0]["rate_per_second"] == 0.5


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ([], 2, "'--max-in-flight' or '--rate': one of them is needed."),
        (["--max-in-flight", "many"], 2, "'--max-in-flight': must be an integer or none, and was 'many'."),
        (["--max-in-flight", "1.5"], 2, "'--max-in-flight': must be an integer or none, and was '1.5'."),
        (["--max-in-flight", "0"], 2, "'--max-in-flight': must be an integer from 1 to 2147483647, and was 0."),
        (["--rate", "fast"], 2, "'--rate': must be a number or none, and was 'fast'."),
        (["--rate", "nan"], 2, "'--rate': must be a number from 0.001 to 1000000, and was nan."),
        (["--rate", "0"], 2, "'--rate': must be a number from 0.001 to 1000000, and was 0.0."),
    ],
)
def test_a_limit_out_of_range_is_refused(harbor: Harbor, options: list[str], code: int, says: str) -> None:
    answer = harbor("queues", "limit", "bulk", *options)

    assert answer.code == code
    assert answer.err.endswith(f"{says}\n")
    assert actions() == []


@pytest.mark.parametrize("command", ["pause", "resume", "limit --rate 1"])
def test_a_queue_that_does_not_exist_is_refused_with_those_that_do(harbor: Harbor, command: str) -> None:
    name, *options = command.split()

    answer = harbor("queues", name, "bulky", *options)

    assert (answer.code, answer.err) == (1, "harbor: Queue bulky does not exist; there are bulk, default, expiry.\n")
