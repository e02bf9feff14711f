"""A task is declared in one way only: a name that others can rely on, and nothing about where it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import OperationalError

from db.errors import HarborError, InvalidTask
from tasks.declare import task

if TYPE_CHECKING:
    from celery import Celery


@pytest.mark.parametrize(
    "name",
    ["expire", "Reservations.expire", "reservations.Expire", "reservations.", ".expire", "a.b.c", "a b.c", "1.b", ""],
)
def test_a_name_that_is_no_noun_and_verb_is_refused(name: str) -> None:
    with pytest.raises(InvalidTask) as refused:
        task(name)

    assert refused.value.ids["task"] == name
    assert "noun.verb" in str(refused.value)


@pytest.mark.parametrize("option", ["queue", "exchange", "routing_key", "priority"])
def test_saying_where_it_runs_is_refused_and_named(option: str) -> None:
    options: dict[str, Any] = {option: "bulk"}

    with pytest.raises(InvalidTask) as refused:
        task("sample.run", **options)

    assert "sample.run" in str(refused.value)
    assert option in str(refused.value)
    assert "celeryconfig.task_routes" in str(refused.value)


def test_every_task_answers_refusals_and_waits_for_the_database(app: Celery) -> None:
    own: list[Any] = [told for name, told in app.tasks.items() if name.startswith(("reservations.", "inventory."))]

    assert own
    assert {told.throws for told in own} == {(HarborError,)}
    assert {told.autoretry_for for told in own} == {(OperationalError,)}
    assert all(told.max_retries == 20 for told in own)


def test_only_tasks_that_are_safe_to_run_again_are_repeatable(app: Celery) -> None:
    repeatable = {name for name, told in app.tasks.items() if getattr(told, "repeatable", False)}

    assert {"reservations.expire", "inventory.reconcile"} <= repeatable
    assert not {"reservations.release", "reservations.confirm"} & repeatable
