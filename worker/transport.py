"""Redis as kombu speaks it, except that what is no message ends no worker: it is parked, counted, and never delivered.

kombu 5.7 takes an entry off its list and then reads it, and what reading raises ends Celery's worker. So every entry is
read here first. One that is no message is parked (worker/parked.py). So is an entry of the unacknowledged that is none,
in the transaction that takes it out of there, and a message whose body turns out to be unreadable, in the transaction
that acknowledges it. When Redis fails meanwhile, the error goes on as any error of the broker does.
"""

from __future__ import annotations

from contextlib import contextmanager
from queue import Empty
from ssl import CERT_NONE
from typing import TYPE_CHECKING, Any, Final

import redis
from kombu import Connection
from kombu.exceptions import DecodeError
from kombu.transport import redis as stock
from kombu.transport.virtual import Message as StockMessage
from kombu.utils.json import dumps, loads

from db.log import warn
from worker import parked
from worker.readable import problem, problem_of_body, problem_of_unacknowledged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redis.client import Pipeline

_BROKER_ERRORS: Final = (redis.RedisError, OSError)


class Message(StockMessage):
    """A message that is parked when whoever could not read its body acknowledges or rejects it."""

    queue = ""
    """Where it was found, which is not always where it says."""
    _unread = False

    def ack(self, multiple: bool = False) -> None:
        """Acknowledge it."""
        self._park_unread()
        super().ack(multiple=multiple)

    def reject(self, requeue: bool = False) -> None:
        """Reject it. It never goes back to a queue when its body could not be read."""
        self._park_unread()
        super().reject(requeue=requeue)

    def _decode(self) -> Any:
        packed: Any = self.body
        try:
            decoded = super()._decode()
            lacking = problem_of_body(packed, decoded)
            if lacking is not None:
                raise DecodeError(lacking)  # noqa: TRY301 - one place marks it
        except Exception:
            self._unread = True
            raise
        return decoded

    def _park_unread(self) -> None:
        if self._unread:
            told: Any = self
            item = dumps(told._raw).encode()  # noqa: SLF001 - its own; the stubs do not know it.
            told.channel.park(self.queue, item, "its body cannot be read", self.delivery_tag)
            self._unread = False


class QoS(stock.QoS):
    """Keeps the unacknowledged; what is no message among them is parked when it would go back to its queue."""

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        """Put a message back into its queue."""
        channel: Any = self.channel
        with channel.parking(tag):
            super().restore_by_tag(tag, client, leftmost)


class Channel(stock.Channel):
    """A channel that reads every entry before kombu does."""

    Message = Message
    QoS = QoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._kept_clients: dict[bool, Any] = {}
        super().__init__(*args, **kwargs)

    def park(self, queue: str, item: bytes, reason: str, tag: str | None = None) -> None:
        """Park an entry and say so; with its tag, also take it from the unacknowledged.

        Raises:
            RedisError, OSError: Redis failed. Unless it had a tag, nothing of the entry is left but a line of the log.
        """
        told = {"queue": queue, "size": len(item), "reason": reason}
        try:
            with parked.plain_client(self).pipeline() as pipe:
                self._add_parking(pipe, queue, item, reason, tag)
                pipe.execute()
        except _BROKER_ERRORS as error:
            warn(__name__, "message.not_parked", **told, error=type(error).__name__)
            raise
        warn(__name__, "message.parked", **told)

    def _add_parking(self, pipe: Pipeline, queue: str, item: bytes, reason: str, tag: str | None) -> None:
        parked.add(pipe, self.global_keyprefix, queue, item, reason)
        if tag is not None:
            pipe.zrem(f"{self.global_keyprefix}{self.unacked_index_key}", tag)
            pipe.hdel(f"{self.global_keyprefix}{self.unacked_key}", tag)

    # ---- What comes from a queue, or by broadcast ------------------------------------------------------------------

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, consumer_tag: str | None, **options: Any) -> Any:
        """Consume from a queue, and tell each message which."""

        def called(message: Any) -> Any:
            message.queue = queue
            return callback(message)

        return super().basic_consume(queue, no_ack, called, consumer_tag, **options)

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> Any:
        """Get the next message of a queue, or None, and tell it which."""
        message: Any = super().basic_get(queue, no_ack, **options)
        if message is not None:
            message.queue = queue
        return message

    def _connparams(self, asynchronous: bool = False) -> Any:
        """Return how to connect. kombu calls this for a connection that is closed, too, which would end the worker."""
        told: Any = self.connection
        if told is None or told.client is None:
            raise redis.ConnectionError("the connection to the broker is closed")
        kombu: Any = super()
        return kombu._connparams(asynchronous)  # noqa: SLF001 - its own; the stubs do not know it.

    def _create_client(self, asynchronous: bool = False) -> Any:
        # kombu makes four clients for each message, each with a table of all commands. One per pool does.
        kept = self._kept_clients.get(asynchronous)
        pool = self.async_pool if asynchronous else self.pool
        if kept is None or kept.connection_pool is not pool:
            kombu: Any = super()
            kept = kombu._create_client(asynchronous)  # noqa: SLF001 - the one place that every client comes from
            kept.set_response_callback("BRPOP", self._popped)
            self._kept_clients[asynchronous] = kept
        return kept

    def _popped(self, response: Any, **_: Any) -> Any:
        """Return what BRPOP answered; when that is no message, None, as if the queues were empty."""
        if not response:
            return None
        key, item = response
        reason = problem(self, item)
        if reason is None:
            return response
        queue = key.decode(errors="replace").removeprefix(self.global_keyprefix).rsplit(self.sep, 1)[0]
        kombu: Any = self
        # As after a message: a queue full of garbage must not keep the worker from the others.
        kombu._queue_cycle.rotate(queue)  # noqa: SLF001 - its own; the stubs do not know it.
        self.park(queue, item, reason)
        return None

    def _get(self, queue: str, timeout: float | None = None) -> Any:  # noqa: ARG002 - its place in kombu's signature
        kombu: Any = self
        with self.conn_or_acquire() as client:
            kombu._maybe_update_queues_expire(client, queue)  # noqa: SLF001 - its own
            for step in self.priority_steps:
                while (item := client.rpop(kombu._q_for_pri(queue, step))) is not None:  # noqa: SLF001 - its own
                    reason = problem(self, item)
                    if reason is None:
                        return loads(item)
                    self.park(queue, item, reason)
        raise Empty

    def _handle_message(self, client: Any, response: Any) -> dict[str, Any]:
        kombu: Any = super()
        told: dict[str, Any] = kombu._handle_message(client, response)  # noqa: SLF001 - what it made of a broadcast
        if told["type"].endswith(b"message") and told["data"]:
            reason = problem(self, told["data"])
            if reason is not None:
                # Every worker has a copy, and nobody misses one.
                warn(__name__, "broadcast.dropped", size=len(told["data"]), reason=reason)
                told["data"] = None
        return told

    # ---- What comes from the unacknowledged ------------------------------------------------------------------------

    def _do_restore_message(self, payload: Any, exchange: Any, key: Any, pipe: Any, leftmost: bool = False) -> None:
        # kombu would forget what it cannot restore, and log all of it. Raised here, it stays where it is.
        reason = problem_of_unacknowledged(self, [payload, exchange, key])
        if reason is not None:
            raise DecodeError(reason)
        kombu: Any = super()
        kombu._do_restore_message(payload, exchange, key, pipe, leftmost)  # noqa: SLF001 - the same, guarded

    @contextmanager
    def parking(self, tag: str) -> Iterator[None]:
        """Park the unacknowledged entry of a tag if the block fails at it because it is no message."""
        try:
            yield
        except _BROKER_ERRORS:
            raise
        except Exception:
            if not self._park_unacked(tag):
                raise

    def _park_unacked(self, tag: str) -> bool:
        """Park an unacknowledged entry if it cannot be read, and return whether it is gone, whoever took it."""
        key = f"{self.global_keyprefix}{self.unacked_key}"
        told: dict[str, Any] = {}

        def move(pipe: Any) -> bool:
            told.clear()
            item = pipe.hget(key, tag)
            reason = item and problem(self, item, problem_of_unacknowledged)
            pipe.multi()
            if reason:
                told.update(queue=self.unacked_key, size=len(item), reason=reason)
                self._add_parking(pipe, self.unacked_key, item, reason, tag)
            return not item or bool(reason)

        client: Any = parked.plain_client(self)
        gone: bool = client.transaction(move, key, value_from_callable=True)
        if told:
            warn(__name__, "message.parked", **told)
        return gone


class Transport(stock.Transport):
    """What redis:// means here."""

    Channel = Channel


class TLSTransport(Transport):
    """What rediss:// means here. kombu knows that it means TLS by the scheme alone, which a transport of ours hides."""

    def __init__(self, client: Connection, **options: Any) -> None:
        if not client.ssl:
            warn(__name__, "broker.certificate_not_checked", hint="add ?ssl_cert_reqs=required to HARBOR_BROKER_URL")
            client.ssl = {"ssl_cert_reqs": CERT_NONE}
        super().__init__(client, **options)


# Without these, logs and Flower would name a broker at worker.transport:Transport://, which Flower cannot ask.
Connection.resolve_aliases.update({f"{__name__}:Transport": "redis", f"{__name__}:TLSTransport": "rediss"})
