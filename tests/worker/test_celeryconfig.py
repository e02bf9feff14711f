"""The settings hold together: numbers that depend on each other, names that must exist somewhere else."""

from __future__ import annotations

import ast
import importlib
import re
from typing import TYPE_CHECKING, Any

import pytest
from celery.app.defaults import SETTING_KEYS
from kombu.transport.redis import Channel

from db.settings import POOLS
from tests.processes import ROOT

if TYPE_CHECKING:
    from celery import Celery

    from tests.broker import Broker

_SECONDS_TO_SPARE = 60


def _own_tasks(app: Celery) -> dict[str, Any]:
    return {name: task for name, task in app.tasks.items() if not name.startswith("celery.")}


@pytest.fixture
def celeryconfig(app: Celery) -> Any:
    return importlib.import_module("celeryconfig")


def test_celeryconfig_has_assignments_only() -> None:
    body = ast.parse((ROOT / "celeryconfig.py").read_text("utf-8")).body

    statements = {type(node) for node in body[1:]}

    assert isinstance(body[0], ast.Expr)
    assert statements == {ast.Import, ast.ImportFrom, ast.Assign} - ({ast.Import} - statements)


def test_every_setting_is_one_that_celery_knows(celeryconfig: Any) -> None:
    names = {name for name in vars(celeryconfig) if name.islower() and not name.startswith("_")} - {"settings"}

    assert names - set(SETTING_KEYS) == set()


def test_every_transport_option_is_one_that_kombu_reads(app: Celery) -> None:
    of_the_transport = {"visibility_timeout", "queue_order_strategy", "deadletter_queue", "client_name"}

    assert set(app.conf.broker_transport_options) - set(Channel.from_transport_options) - of_the_transport == set()


def test_no_message_is_redelivered_while_its_task_may_still_run(app: Celery) -> None:
    longest_seconds = app.conf.task_time_limit + app.conf.worker_soft_shutdown_timeout

    assert app.conf.broker_transport_options["visibility_timeout"] >= longest_seconds + _SECONDS_TO_SPARE


def test_a_task_has_time_to_roll_back_before_it_is_killed(app: Celery) -> None:
    assert app.conf.task_soft_time_limit <= app.conf.task_time_limit - 30


def test_the_wait_before_a_retry_stays_far_below_the_visibility_timeout(app: Celery) -> None:
    # A retry waits in the memory of a worker, unacknowledged: beyond the timeout another worker would run it too.
    third_seconds = app.conf.broker_transport_options["visibility_timeout"] / 3
    tasks = _own_tasks(app)

    waits_seconds = {name: max(task.retry_backoff_max, task.default_retry_delay) for name, task in tasks.items()}

    assert waits_seconds
    assert {name for name, seconds in waits_seconds.items() if seconds >= third_seconds} == set()


def test_a_lost_worker_loses_no_task_and_a_task_that_kills_workers_ends(app: Celery) -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_retry_on_worker_lost
    assert not app.conf.task_reject_on_worker_lost


def test_messages_are_json_and_results_are_kept_nowhere(app: Celery) -> None:
    assert app.conf.accept_content == ["json"]
    assert app.conf.task_serializer == "json"
    assert app.conf.result_backend is None


def test_every_route_leads_to_a_declared_queue_and_every_pool_has_one(app: Celery) -> None:
    declared = {queue.name for queue in app.conf.task_queues}
    routed = {route["queue"] for route in app.conf.task_routes.values()} | {app.conf.task_default_queue}

    assert declared == set(POOLS)
    assert routed <= declared


def test_every_task_is_named_by_a_noun_and_a_verb(app: Celery) -> None:
    names = set(_own_tasks(app))

    assert {"reservations.expire", "reservations.release", "reservations.confirm", "inventory.reconcile"} <= names
    assert {name for name in names if not re.fullmatch(r"[a-z_0-9]+\.[a-z_0-9]+", name)} == set()


def test_every_entry_of_beat_starts_a_task_that_exists_and_its_ticks_do_not_pile_up(app: Celery) -> None:
    entries: dict[str, Any] = app.conf.beat_schedule

    assert {entry["task"] for entry in entries.values()} <= set(_own_tasks(app))
    # What may overlap would pile up while no worker runs; what may not waits for one job that has not ended.
    lives = {name: entry["options"]["expires"] for name, entry in entries.items()}
    piling = {name for name, entry in entries.items() if entry["options"].get("overlap") != "skip"}
    assert {name for name in piling if lives[name] > max(entries[name]["schedule"], 30)} == set()
    assert max(lives.values()) <= 600
    assert min(lives.values()) >= 30


def test_work_with_a_time_budget_ends_before_its_next_tick(app: Celery) -> None:
    from tasks.inventory import RECONCILE_BUDGET
    from tasks.reservations import SWEEP_BUDGET

    entries: dict[str, Any] = app.conf.beat_schedule

    assert SWEEP_BUDGET.total_seconds() < entries["reservations-expire"]["schedule"]
    assert RECONCILE_BUDGET.total_seconds() < entries["inventory-reconcile"]["schedule"]
    assert RECONCILE_BUDGET.total_seconds() < app.conf.task_soft_time_limit


def test_a_default_priority_leaves_room_above_it(app: Celery) -> None:
    steps = app.conf.broker_transport_options["priority_steps"]

    assert app.conf.task_default_priority in steps
    assert app.conf.task_default_priority > min(steps)


@pytest.mark.parametrize(
    ("more", "supported"), [({}, True), ({"retry_on_timeout": True}, False)], ids=["as told", "retry_on_timeout"]
)
def test_messages_can_be_published_in_batches(
    app: Celery, broker: Broker, more: dict[str, bool], supported: bool
) -> None:
    options = {**app.conf.broker_transport_options, **more}

    with app.connection_for_write(url=broker.url, transport_options=options) as connection:
        producer: Any = connection.Producer()
        supports = producer.supports_batch_publish

    assert supports is supported
