"""No message stops a worker: what it cannot run it drops with a word, and it runs the next one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.processes import wait_until
from tests.worker.conftest import RUN_SECONDS

if TYPE_CHECKING:
    from celery import Celery

    from tests.worker.conftest import Worker

_JSON = "application/json"
_ADD = {"task": "sample.add", "id": "", "lang": "py"}

_GARBAGE: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "too few arguments": (b"[[1], {}, {}]", _JSON, _ADD),
    "too many arguments": (b"[[1, 2, 3], {}, {}]", _JSON, _ADD),
    "an unknown argument": (b'[[1, 2], {"third": 3}, {}]', _JSON, _ADD),
    "arguments of another type": (b'[["one", null], {}, {}]', _JSON, _ADD),
    "an unknown task": (b"[[], {}, {}]", _JSON, {**_ADD, "task": "sample.no_such_task"}),
    "a body that is no JSON": (b"{not json", _JSON, _ADD),
    "a body that is no text": (b"\xff\xfe\x00", _JSON, _ADD),
    "a body that is no list": (b'"text"', _JSON, _ADD),
    "a list of another length": (b"[[1, 2]]", _JSON, _ADD),
    "arguments that are no list": (b"[5, 6, 7]", _JSON, _ADD),
    "options that are no object": (b"[[1, 2], {}, 5]", _JSON, _ADD),
    "no options": (b"[[1, 2], {}, null]", _JSON, _ADD),
    "retries that are no number": (b"[[1, 2], {}, {}]", _JSON, {**_ADD, "retries": "many"}),
    "a time limit that is no pair": (b"[[1, 2], {}, {}]", _JSON, {**_ADD, "timelimit": 5}),
    "a time limit that is no number": (b"[[1, 2], {}, {}]", _JSON, {**_ADD, "timelimit": ["soon", None]}),
    "headers of another type": (b"[[1, 2], {}, {}]", _JSON, {**_ADD, "shadow": 5, "group": 5, "argsrepr": 5}),
    "a task that is no name": (b"[[1, 2], {}, {}]", _JSON, {**_ADD, "task": 5}),
    "an object of the first protocol": (b'{"task": "sample.add", "id": "1", "args": [1], "kwargs": {}}', _JSON, {}),
    "an object without an id": (b'{"task": "sample.add", "args": [1], "kwargs": {}}', _JSON, {}),
    "an object with arguments of another type": (b'{"task": "sample.add", "id": "1", "args": 5}', _JSON, {}),
    "an object of another task": (b'{"task": 5, "id": "1"}', _JSON, {}),
    "an object with headers": (b'{"task": "sample.add"}', _JSON, _ADD),
    "a pickle": (b"\x80\x04N.", "application/x-python-serialize", _ADD),
    "an unknown content type": (b"a,b", "text/csv", _ADD),
    "no headers": (b"[[], {}, {}]", _JSON, {}),
    "an expiry that is no date": (b"[[1, 2], {}, {}]", _JSON, {**_ADD, "expires": "soon"}),
    "an eta that is no date": (b"[[1, 2], {}, {}]", _JSON, {**_ADD, "eta": "soon"}),
}


@pytest.mark.parametrize(("body", "content_type", "headers"), _GARBAGE.values(), ids=_GARBAGE)
def test_a_message_that_makes_no_sense_never_stops_a_worker(
    app: Celery, worker: Worker, body: bytes, content_type: str, headers: dict[str, Any]
) -> None:
    told = {**headers, "id": str(uuid4())} if headers else {}

    with app.connection_for_write(url=worker.broker.url) as connection:
        connection.Producer().publish(
            body,
            exchange="",
            routing_key="default",
            content_type=content_type,
            content_encoding="binary" if content_type != _JSON else "utf-8",
            headers=told,
        )
    next_id = worker.send("sample.add", 1, 2)

    # When the message stops the worker, this fails at once and not at a deadline.
    wait_until(lambda: worker.lines(next_id) or not worker.process.runs(), RUN_SECONDS, worker.process)
    assert worker.process.runs(), worker.process.text()[-2_000:]
    wait_until(lambda: worker.broker.unacked() == 0, RUN_SECONDS, worker.process)
    assert worker.broker.lengths() == {}
