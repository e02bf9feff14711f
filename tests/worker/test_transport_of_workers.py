"""A worker goes on where kombu's own transport ends it, and a URL means to both the same."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from kombu import Connection
from kombu.transport.redis import Transport as StockTransport

from tests.broker import own_broker
from tests.processes import process, program, python, run, wait_until
from tests.worker.conftest import RUN_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.conftest import Worker


def test_kombus_own_transport_ends_a_worker_at_the_same_entry(servers: dict[str, str], tmp_path: Path) -> None:
    command = ["-m", "celery", "-A", "tests.worker.sample_tasks", "worker", "--pool", "solo", "--without-mingle"]
    environ = {"HARBOR_ENV": "prod", "SAMPLE_SOFT_SHUTDOWN_SECONDS": "1"}
    with own_broker(servers) as broker:
        broker.client.lpush("harbor:default", b"42")
        told = broker.environ({**os.environ, **servers, **environ})

        with process(python(*command, "broker.transport=redis"), told, tmp_path / "worker.log") as stock:
            wait_until(lambda: not stock.runs(), RUN_SECONDS, stock)

    assert "Unrecoverable error" in stock.text()
    assert stock.events("message.parked") == []


def test_a_broadcast_that_is_none_is_dropped_and_the_worker_still_listens(
    servers: dict[str, str], worker: Worker
) -> None:
    database = worker.broker.url.rpartition("/")[2]
    for garbage in (b"42", b"\xff", b"[" * 100_000, b"{}"):
        worker.broker.client.publish(f"harbor:/{database}.celery.pidbox", garbage)

    ping = run([program("celery"), "-A", "worker", "inspect", "ping"], worker.broker.environ({**os.environ, **servers}))

    assert "1 node online" in ping.stdout, ping.stderr
    assert len(worker.process.events("broadcast.dropped")) == 4
    assert worker.broker.lengths() == {}


def test_a_worker_parks_what_another_left_unacknowledged_and_cannot_be_read(worker: Worker) -> None:
    worker.broker.client.hset("harbor:unacked:default", "lost", "[1, 2]")
    worker.broker.client.zadd("harbor:unacked_index:default", {"lost": 1.0})
    parked_before = len(worker.process.events("message.parked"))

    # It looks every five seconds.
    wait_until(lambda: worker.broker.unacked() == 0 or not worker.process.runs(), RUN_SECONDS, worker.process)
    worker.run("sample.add", 1, 2)

    (line,) = worker.process.events("message.parked")[parked_before:]
    assert (line["queue"], line["size"]) == ("unacked:default", 6)


@pytest.mark.parametrize(
    ("url", "ours"),
    [
        ("redis://:secret@broker:6380/3", "worker.transport:Transport"),
        ("rediss://:secret@broker:6380/3", "worker.transport:TLSTransport"),
        ("rediss://broker/0?ssl_cert_reqs=required", "worker.transport:TLSTransport"),
    ],
)
def test_a_url_means_what_it_means_to_kombu(url: str, ours: str) -> None:
    def told(connection: Connection) -> dict[str, Any]:
        assert isinstance(connection.transport, StockTransport)
        return {**connection.info(), "uri": connection.as_uri(include_password=True), "shown": connection.as_uri()}

    assert told(Connection(url, transport=ours)) == told(Connection(url))
    assert told(Connection(url, transport=ours).clone()) == told(Connection(url))


@pytest.mark.parametrize(
    ("scheme", "name"), [("redis", "Transport"), ("rediss", "TLSTransport")], ids=["redis", "rediss"]
)
def test_the_scheme_of_the_url_decides_on_the_transport(servers: dict[str, str], scheme: str, name: str) -> None:
    environ = {**os.environ, **servers, "HARBOR_BROKER_URL": f"{scheme}://broker:6379/0"}
    asked = "import json; from worker.celery import app; print(json.dumps(app.conf.broker_transport))"

    answer = run(python("-c", asked), environ)

    assert json.loads(answer.stdout) == f"worker.transport:{name}"
