"""The transport parks what is no message, wherever it finds it, and is otherwise kombu's own."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.exceptions import DecodeError
from kombu.transport.redis import Transport as StockTransport
from redis.backoff import NoBackoff
from redis.retry import Retry

from worker import parked, transport
from worker.parked import COUNT_KEY, LIST_KEY

if TYPE_CHECKING:
    from collections.abc import Iterator

    from celery import Celery

    from tests.broker import Broker
_GARBAGE = b"no message"
_STEPS = ["", "\x06\x163", "\x06\x166", "\x06\x169"]


@pytest.fixture
def connection(app: Celery, broker: Broker) -> Iterator[Connection]:
    """As Harbor connects, to an empty broker."""
    broker.client.flushdb()
    with app.connection_for_read(url=broker.url) as connection:
        yield connection


def _publish(connection: Connection, queue: str, body: object) -> None:
    # Of the lowest priority: whatever a test puts into the queue comes first.
    connection.Producer().publish(body, exchange="", routing_key=queue, serializer="json", priority=9)


def _get(connection: Connection, queue: str) -> Any:
    return connection.SimpleQueue(queue).get(block=False)


def _unacknowledged(broker: Broker, tag: str, entry: bytes, score: float = 1.0) -> None:
    broker.client.hset("harbor:unacked:default", tag, entry)
    broker.client.zadd("harbor:unacked_index:default", {tag: score})


# ---- What comes from a queue ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", _STEPS, ids=repr)
def test_the_next_message_is_got_behind_what_is_none_at_any_priority(
    connection: Connection, broker: Broker, step: str
) -> None:
    broker.client.lpush(f"harbor:default{step}", _GARBAGE, b"")
    _publish(connection, "default", "good")

    message = _get(connection, "default")
    message.ack()

    assert message.payload == "good"
    assert (broker.lengths(), broker.unacked()) == ({LIST_KEY: 2}, 0)


@pytest.mark.parametrize("step", _STEPS, ids=repr)
def test_the_next_message_is_consumed_behind_what_is_none_at_any_priority(
    connection: Connection, broker: Broker, step: str
) -> None:
    got: list[Any] = []
    broker.client.lpush(f"harbor:default{step}", _GARBAGE, _GARBAGE)
    _publish(connection, "default", "good")

    with Consumer(connection.default_channel, [Queue("default")], on_message=got.append, accept=["json"]):
        connection.drain_events(timeout=5)
    got[0].ack()

    assert [message.payload for message in got] == ["good"]
    assert (broker.lengths(), broker.unacked()) == ({LIST_KEY: 2}, 0)


def test_a_queue_full_of_what_is_no_message_does_not_keep_the_others_waiting(
    connection: Connection, broker: Broker
) -> None:
    got: list[Any] = []
    broker.client.lpush("harbor:bulk", *[_GARBAGE] * 50)
    broker.client.lpush("harbor:default", *[_GARBAGE] * 50)
    connection.Producer().publish("good", exchange="", routing_key="expiry", serializer="json", priority=0)

    queues = [Queue("bulk"), Queue("default"), Queue("expiry")]
    with Consumer(connection.default_channel, queues, on_message=got.append, accept=["json"]):
        connection.drain_events(timeout=5)
    got[0].ack()

    assert broker.lengths()[LIST_KEY] <= 2


def test_without_a_prefix_the_same_is_parked_under_the_bare_key(app: Celery, broker: Broker) -> None:
    broker.client.flushdb()
    options = {**app.conf.broker_transport_options, "global_keyprefix": ""}
    broker.client.lpush("default", _GARBAGE)

    with app.connection_for_read(url=broker.url, transport_options=options) as connection:
        _publish(connection, "default", "good")
        message = _get(connection, "default")
        message.ack()
        (found,) = parked.newest(connection)

    assert (message.payload, found.content) == ("good", _GARBAGE)
    assert broker.client.llen(LIST_KEY) == 1


# ---- The list ------------------------------------------------------------------------------------------------------


def test_the_list_keeps_the_newest_entries_and_the_count_knows_all(
    connection: Connection, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "LIST_LIMIT", 3)
    broker.client.lpush("harbor:default", *[f"no message {number}" for number in range(5)])

    with pytest.raises(connection.SimpleQueue("default").Empty):
        _get(connection, "default")

    assert [entry.content for entry in parked.newest(connection)] == [f"no message {n}".encode() for n in (4, 3, 2)]
    assert [entry.content for entry in parked.newest(connection, limit=1)] == [b"no message 4"]
    assert (parked.count(connection), broker.client.get(f"harbor:{COUNT_KEY}")) == (5, b"5")


def test_of_a_long_entry_the_beginning_is_kept_and_the_length_told(connection: Connection, broker: Broker) -> None:
    entry = b"\n\x00" + os.urandom(10_000_000)
    broker.client.lpush("harbor:default", entry)

    with pytest.raises(connection.SimpleQueue("default").Empty):
        _get(connection, "default")

    (found,) = parked.newest(connection)
    assert (found.size, found.content) == (len(entry), entry[: parked.CONTENT_BYTES])
    assert len(broker.client.lindex(f"harbor:{LIST_KEY}", 0) or b"") < parked.CONTENT_BYTES + 300


def test_nothing_parked_is_no_entry_and_a_count_of_zero(connection: Connection) -> None:
    assert (parked.newest(connection), parked.newest(connection, limit=0), parked.count(connection)) == ([], [], 0)


# ---- The unacknowledged --------------------------------------------------------------------------------------------

_ENTRIES = {
    "bytes": b"\xff\xfe",
    "no JSON": b"{",
    "a number": b"42",
    "too few parts": b"[{}, 1]",
    "no message": b'[5, "", "default"]',
    "a routing key that is no text": b'[{}, "", {}]',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("entry", _ENTRIES.values(), ids=_ENTRIES)
def test_what_is_no_message_among_the_unacknowledged_is_parked_and_the_others_go_back(
    connection: Connection, broker: Broker, entry: bytes
) -> None:
    _publish(connection, "default", "good")
    taken = _get(connection, "default")
    broker.client.zadd("harbor:unacked_index:default", {taken.delivery_tag: 1.0})
    _unacknowledged(broker, "garbage", entry, score=2.0)

    _sweep(connection)

    assert (broker.lengths(), broker.unacked()) == ({"default": 1, LIST_KEY: 1}, 0)
    assert broker.client.zcard("harbor:unacked_index:default") == 0
    (found,) = parked.newest(connection)
    assert (found.queue, found.content) == ("unacked:default", entry[: parked.CONTENT_BYTES])


@pytest.mark.parametrize("entry", [b"\xff\xfe", b"42", b"[{}, 1]"], ids=repr)
def test_kombus_own_channel_fails_at_the_same_entry(app: Celery, broker: Broker, entry: bytes) -> None:
    broker.client.flushdb()
    _unacknowledged(broker, "garbage", entry)

    with (
        app.connection_for_read(url=broker.url, transport=StockTransport) as connection,
        pytest.raises((ValueError, TypeError)),
    ):
        _sweep(connection)


def test_a_message_without_an_entry_is_restored_by_nobody(connection: Connection, broker: Broker) -> None:
    broker.client.zadd("harbor:unacked_index:default", {"gone": 1.0})

    _sweep(connection)

    assert (broker.lengths(), broker.client.zcard("harbor:unacked_index:default")) == ({}, 0)


def _sweep(connection: Connection) -> None:
    """Do what a worker does every five seconds."""
    channel: Any = connection.default_channel
    channel.qos.restore_visible(interval=1)


# ---- A Redis that fails meanwhile ----------------------------------------------------------------------------------


def _unreachable() -> redis.Redis:
    return redis.Redis(port=1, retry=Retry(NoBackoff(), 0))


def test_a_redis_that_fails_while_parking_is_an_error_of_the_connection(
    connection: Connection, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parked, "plain_client", lambda _channel: _unreachable())
    broker.client.lpush("harbor:default", _GARBAGE)

    with (
        Consumer(connection.default_channel, [Queue("default")], on_message=print),
        pytest.raises(connection.connection_errors, match="refused"),
    ):
        connection.drain_events(timeout=5)


def test_an_unreadable_body_stays_unacknowledged_until_it_is_parked(connection: Connection, broker: Broker) -> None:
    connection.Producer().publish(
        b"{", exchange="", routing_key="default", content_type="application/json", content_encoding="utf-8"
    )
    message = _get(connection, "default")
    with pytest.raises(DecodeError):
        message.decode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(parked, "plain_client", lambda _channel: _unreachable())
        with pytest.raises(connection.connection_errors):
            message.ack()
    assert (broker.lengths(), broker.unacked()) == ({}, 1)

    message.ack()

    assert (broker.lengths(), broker.unacked()) == ({LIST_KEY: 1}, 0)


# ---- Otherwise kombu's own -----------------------------------------------------------------------------------------


def test_harbor_publishes_in_batches_through_this_transport(connection: Connection) -> None:
    producer: Any = connection.Producer()

    assert isinstance(connection.transport, transport.Transport)
    assert producer.supports_batch_publish
