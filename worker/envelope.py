"""The message that stands for a job on its way: what `send_task` would send, and a header that says there is a row.

It is made from parts that were made once. `send_task` makes all of it anew for each message, which is what a relay of
one `send_task` per row spends most of its time with.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from celery.utils.saferepr import saferepr

if TYPE_CHECKING:
    from celery import Celery

    from db.jobs import Message

JOB_HEADER: Final = "harbor_job"
"""Set in a message that a relay has sent; the base Task then claims the row before it runs anything."""

_FEW: Final = 8
_NUMBERS: Final = frozenset({int, bool, type(None)})
_EMBED: Final = json.dumps({"callbacks": None, "errbacks": None, "chain": None, "chord": None})


class Envelope:
    """Makes the arguments of kombu's `Producer.publish` from a job's row."""

    def __init__(self, app: Celery) -> None:
        # Celery's own types know neither of the two.
        amqp: Any = app.amqp
        made = amqp.as_task_v2("", "", ignore_result=None)
        self._headers: dict[str, Any] = {**made.headers, JOB_HEADER: True}
        self._reply_to: str = app.thread_oid
        self._repr_size: int = amqp.argsrepr_maxsize
        self._levels: Any = app.conf.task_repr_maxlevels
        self._delivery_mode: Any = app.conf.task_default_delivery_mode

    def of(self, message: Message) -> dict[str, Any]:
        """Return what to publish for a row: body, routing, headers and properties."""
        task_id = str(message.task_id)
        return {
            "body": f"[{message.args}, {message.kwargs}, {_EMBED}]",
            "exchange": "",
            "routing_key": message.queue,
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "priority": message.priority,
            "delivery_mode": self._delivery_mode,
            "correlation_id": task_id,
            "reply_to": self._reply_to,
            "retry": False,
            "headers": {
                **self._headers,
                "id": task_id,
                "task": message.task,
                "root_id": task_id,
                "argsrepr": self._shown(tuple(json.loads(message.args))),
                "kwargsrepr": "{}" if message.kwargs == "{}" else self._shown(json.loads(message.kwargs)),
            },
        }

    def _shown(self, value: Any) -> str:
        # Of a few numbers Celery's careful way makes the same, in a fifth of a relay's time (measured).
        if len(value) <= _FEW and all(type(part) in _NUMBERS for part in value) and isinstance(value, tuple):
            return repr(value)
        shown: str = saferepr(value, self._repr_size, maxlevels=self._levels)
        return shown
