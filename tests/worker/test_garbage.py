"""Nothing in a queue stops a worker: what it cannot read it parks, what it cannot run it drops, each with a word."""

from __future__ import annotations

import base64
import json
import pickle
import random
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from tests.processes import wait_until
from tests.worker.conftest import RUN_SECONDS
from worker.parked import CONTENT_BYTES, LIST_KEY, newest

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


# The others are messages, and are dropped: of arguments that nobody takes, of a task that nobody knows, of no task.
_UNREADABLE = {
    "a body that is no JSON",
    "a body that is no text",
    "a time limit that is no pair",
    "a time limit that is no number",
    "a task that is no name",
    "an object without an id",
    "an object of another task",
    "an object with headers",
    "a pickle",
    "an unknown content type",
}


@pytest.fixture(autouse=True)
def _nothing_parked(worker: Worker) -> None:
    worker.broker.client.delete(f"harbor:{LIST_KEY}")


@pytest.mark.parametrize("name", _GARBAGE)
def test_a_message_that_makes_no_sense_never_stops_a_worker(app: Celery, worker: Worker, name: str) -> None:
    body, content_type, headers = _GARBAGE[name]
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
    _goes_on(worker)

    assert worker.broker.lengths() == ({LIST_KEY: 1} if name in _UNREADABLE else {})


def _raw(**parts: Any) -> bytes:
    """A message as kombu writes it, with some parts replaced; a part that is None is left out."""
    told = {
        "body": base64.b64encode(b"[[1, 2], {}, {}]").decode(),
        "content-encoding": "utf-8",
        "content-type": _JSON,
        "headers": {**_ADD, "id": str(uuid4())},
        "properties": _properties(),
        **parts,
    }
    return json.dumps({name: part for name, part in told.items() if part is not None}).encode()


def _properties(**parts: Any) -> dict[str, Any]:
    told = {
        "body_encoding": "base64",
        "delivery_tag": str(uuid4()),
        "delivery_info": {"exchange": "", "routing_key": "default"},
        "priority": 0,
        **parts,
    }
    return {name: part for name, part in told.items() if part is not None}


_ENTRIES: dict[str, bytes] = {
    "random bytes": random.Random(7).randbytes(1_000),
    "an empty entry": b"",
    "a text": b"hello, is anybody there?",
    "half a message": _raw()[:-20],
    "a message with a byte that is no UTF-8": _raw(headers={**_ADD, "id": "7", "shadow": "?"}).replace(b"?", b"\xff"),
    "a pickled object": pickle.dumps({"task": "sample.add"}),
    "a number": b"42",
    "nothing": b"null",
    "a text in JSON": b'"sample.add"',
    "a list": b"[1, 2, 3]",
    "an object without properties": b'{"body": "e30="}',
    "properties that are no object": _raw(properties=[1]),
    "no delivery tag": _raw(properties=_properties(delivery_tag=None)),
    "a delivery tag that is no text": _raw(properties=_properties(delivery_tag=[1])),
    "a delivery tag that is no Unicode": _raw(properties=_properties(delivery_tag="\ud800")),
    "no delivery info": _raw(properties=_properties(delivery_info=None)),
    "delivery info that is no object": _raw(properties=_properties(delivery_info="default")),
    "a routing key that is no text": _raw(properties=_properties(delivery_info={"exchange": "", "routing_key": []})),
    "a priority beyond all numbers": _raw(properties=_properties(priority=float("inf"))),
    "an unknown encoding of the body": _raw(properties=_properties(body_encoding="rot13")),
    "a body that is not in its encoding": _raw(body="abc"),
    "a body that is no text": _raw(body=[[1, 2], {}, {}]),
    "no body": _raw(body=None),
    "headers that are no object": _raw(headers=[1]),
    "a task that is no name": _raw(headers={"task": ["sample.add"], "id": "1"}),
    "a task without an id": _raw(headers={"task": "sample.no_such_task"}),
    "an eta that is a list": _raw(headers={**_ADD, "id": "1", "eta": []}),
    "stamps that are no list": _raw(headers={**_ADD, "id": "1", "stamped_headers": 5}),
    "an unknown compression": _raw(headers={**_ADD, "id": "1", "compression": "none"}),
    "a content type that is no text": _raw(**{"content-type": ["json"]}),
    "a content encoding that is no text": _raw(**{"content-encoding": 8}),
    "an unknown type of kombu's JSON": b'{"__type__": "module", "__value__": "os"}',
    "a type of kombu's JSON that is none": b'{"__type__": "date", "__value__": 5}',
    "more brackets than Python reads": b"[" * 100_000,
    "headers too deep to be written": _raw(headers={"deep": json.loads("[" * 900 + "]" * 900)}),
    "a body that is JSON but of no task, too deep to be sent to a child": _raw(
        body=base64.b64encode(b"[[1, " + b"[" * 930 + b"]" * 930 + b"], {}, {}]").decode()
    ),
    "a body that is not JSON": _raw(body=base64.b64encode(b"{not json").decode()),
    "a body that is not JSON, and lies about its queue": _raw(
        body=base64.b64encode(b"{not json").decode(),
        properties=_properties(delivery_info={"exchange": "", "routing_key": "secret"}),
    ),
    "10 MB of random bytes": random.Random(7).randbytes(10_000_000),
    "a message with 10 MB that are not JSON": _raw(body=base64.b64encode(b"[" + b"a" * 10_000_000).decode()),
}


@pytest.mark.parametrize("name", _ENTRIES)
def test_what_is_no_message_is_parked_and_the_next_task_runs(app: Celery, worker: Worker, name: str) -> None:
    item = _ENTRIES[name]
    lines = len(worker.process.events("message.parked"))

    worker.broker.client.lpush("harbor:default", item)
    _goes_on(worker)

    with app.connection_for_read(url=worker.broker.url) as connection:
        (parked,) = newest(connection)
    assert worker.broker.lengths() == {LIST_KEY: 1}
    assert (parked.queue, parked.size, parked.content) == ("default", len(item), item[:CONTENT_BYTES])
    (line,) = worker.process.events("message.parked")[lines:]
    assert (line["queue"], line["size"], line["reason"]) == ("default", len(item), parked.reason)
    assert set(line) == {"event", "queue", "size", "reason", "level", "logger", "timestamp"}


def _goes_on(worker: Worker) -> None:
    """Assert that the worker runs the next task and holds nothing back."""
    next_id = worker.send("sample.add", 1, 2)
    # When the message stops the worker, this fails at once and not at a deadline.
    wait_until(lambda: worker.lines(next_id) or not worker.process.runs(), RUN_SECONDS, worker.process)
    assert worker.process.runs(), worker.process.text()[-2_000:]
    wait_until(lambda: worker.broker.unacked() == 0, RUN_SECONDS, worker.process)
