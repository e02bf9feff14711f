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
    "a body of another shape": (b'"text"', _JSON, _ADD),
    "arguments that are no list": (b"[5, 6, 7]", _JSON, _ADD),
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
    worker.run("sample.add", 1, 2)

    assert worker.process.runs()
    wait_until(lambda: worker.broker.unacked() == 0, RUN_SECONDS, worker.process)
    assert worker.broker.lengths() == {}
