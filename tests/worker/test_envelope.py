"""A relay's message is what `send_task` sends, field by field, and one header more."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from db import jobs
from worker.envelope import JOB_HEADER, Envelope

if TYPE_CHECKING:
    from celery import Celery

    from tests.broker import Broker

_CASES: dict[str, tuple[tuple[Any, ...], dict[str, Any], int]] = {
    "no arguments": ((), {}, 6),
    "primary keys": ((42,), {}, 6),
    "keywords, urgent": ((), {"reservation_id": 7, "payment_ref": "pay-7"}, 0),
    "text beyond ASCII": (("Grüße", 'a "quoted" \\ text', "\n"), {"emoji": "🛟"}, 9),
    "nested values": (([1, [2, {"a": None}]], True, 1.5), {"deep": {"er": [{}]}}, 3),
    "long text": (("x" * 5_000,), {"more": list(range(2_000))}, 6),
}


@pytest.mark.parametrize(("args", "kwargs", "priority"), _CASES.values(), ids=_CASES)
def test_it_equals_a_message_of_send_task(
    app: Celery, broker: Broker, args: tuple[Any, ...], kwargs: dict[str, Any], priority: int
) -> None:
    task_id = uuid4()
    row = jobs.Message(task_id, "inventory.reconcile", "bulk", priority, json.dumps(args), json.dumps(kwargs))
    with app.connection_for_write(url=broker.url) as connection:
        app.send_task(
            row.task,
            args=args,
            kwargs=kwargs,
            task_id=str(task_id),
            priority=priority,
            headers={JOB_HEADER: True},
            # A process that knows the task would say them; in one that does not, as a relay, the worker's own count.
            time_limit=None,
            soft_time_limit=None,
            connection=connection,
        )
        sent = taken(broker)
        producer: Any = connection.Producer(serializer="json")
        with producer.batch():
            producer.publish(**Envelope(app).of(row))
    relayed = taken(broker)

    assert relayed["body"] == [list(args), kwargs, sent["body"][2]]
    assert relayed == sent


def taken(broker: Broker) -> dict[str, Any]:
    """The only message that waits, decoded, without the tag that each delivery makes anew."""
    (key,) = broker.client.scan_iter(match="harbor:bulk*")
    popped: Any = broker.client.rpop(key)
    message: dict[str, Any] = json.loads(popped)
    assert broker.client.llen(key) == 0
    message["body"] = json.loads(base64.b64decode(message["body"]))
    assert message["properties"].pop("delivery_tag")
    return {**message, "list": key}
