"""Where a message goes is decided by the first word of its task's name, whoever sends it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery.exceptions import QueueNotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from tests.broker import Broker


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        ("reservations.expire", "expiry"),
        ("reservations.release", "expiry"),
        ("inventory.reconcile", "bulk"),
        ("backfills.advance", "bulk"),
        ("cache.warm", "default"),
    ],
)
def test_a_task_goes_to_the_queue_of_its_noun_and_to_no_other(
    send: Callable[..., str], broker: Broker, task: str, queue: str
) -> None:
    broker.client.flushdb()

    send(broker, task)

    assert broker.lengths() == {queue: 1}


def test_a_task_sent_by_its_function_goes_where_its_name_goes(app: Celery, broker: Broker) -> None:
    broker.client.flushdb()

    release: Any = app.tasks["reservations.release"]

    with app.connection_for_write(url=broker.url) as connection:
        release.apply_async((7,), connection=connection)

    assert broker.lengths() == {"expiry": 1}


def test_a_misspelt_queue_is_refused_and_not_made(send: Callable[..., str], broker: Broker) -> None:
    broker.client.flushdb()

    with pytest.raises(QueueNotFound):
        send(broker, "cache.warm", queue="expriy")

    assert broker.lengths() == {}
