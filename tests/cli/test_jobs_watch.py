from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import pytest

from db.jobs import JobState
from db.session import transaction
from tests.cli.terminal import Terminal
from tests.db.sql import change
from tests.ledger import (
    attempt,
    buried,
    claimed,
    fill,
    make_type,
    put,
)

if TYPE_CHECKING:
    from uuid import UUID

    from tests.cli.conftest import Harbor


@pytest.fixture(autouse=True)
def _types(database: None) -> None:
    make_type()
    make_type("sample.pay", queue="bulk", reservation_id=["integer"], payment_ref=["string"])


def dead(error: str = "no such payment") -> UUID:
    return buried("sample.pay", 42, "pay-secret", error=error)


def test_stats_are_told_by_queue_and_by_task(harbor: Harbor) -> None:
    dead()
    put()
    taken = claimed()
    with attempt(taken), transaction():
        pass

    told = harbor("jobs", "stats", "--json").json()
    text = harbor("jobs", "stats").out

    assert told["queues"]["bulk"]["dead"] == told["tasks"]["sample.pay"]["dead"] == 1
    assert told["queues"]["default"]["published"] == 1
    assert told["queues"]["default"]["done_per_second"] == pytest.approx(0.1)
    assert re.search(r"^ default +0 +0 +0 +1 ", text, re.MULTILINE)
    assert re.search(r"^ sample\.pay +0 +0 +0 +0 +0 +0 +1 ", text, re.MULTILINE)


def test_stats_say_when_nothing_is_pruned(harbor: Harbor) -> None:
    fill(1, "done", ended_ago="30 h")

    assert "The oldest job that is done is 30 h old: jobs.prune does not run" in harbor("jobs", "stats").out
    change("UPDATE jobs SET finished_at = statement_timestamp()")
    assert "jobs.prune" not in harbor("jobs", "stats").out


def test_a_watch_for_scripts_is_one_line_of_json_for_each_look(harbor: Harbor) -> None:
    put()

    lines = harbor("jobs", "watch", "--count", 2, "--interval", 0.2, "--json").out.splitlines()

    assert [json.loads(line)["queues"]["default"]["due"] for line in lines] == [1, 1]


def test_a_watch_ends_after_its_count(harbor: Harbor) -> None:
    answer = harbor("jobs", "watch", "--count", 1)

    assert answer.code == 0
    assert re.search(r"^default +0 ", answer.out, re.MULTILINE)


@pytest.mark.parametrize("options", [["--interval", "0"], ["--count", "0"], ["--interval", "nan"]])
def test_a_watch_refuses_what_is_out_of_range(harbor: Harbor, options: list[str]) -> None:
    assert harbor("jobs", "watch", *options, "--json").code == 2


def test_every_state_can_be_listed(harbor: Harbor) -> None:
    for each in JobState:
        fill(1, each)

    assert [len(harbor("jobs", "list", "--state", each, "--json").json()) for each in JobState] == [1] * len(JobState)


@pytest.mark.parametrize("keys", ["q", "\x03"], ids=["q", "ctrl-c"])
def test_the_watch_is_live_until_a_key_ends_it(keys: str) -> None:
    terminal = Terminal("jobs", "watch", "--interval", "0.2")
    terminal.until("expiry")
    # A queue that only a job is left of.
    make_type("sample.new", queue="new")
    put("sample.new")
    make_type("sample.new")

    terminal.until("\nnew ")
    terminal.type(keys)

    assert terminal.end() == 0
