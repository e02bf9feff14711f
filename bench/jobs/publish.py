"""What publishing costs without a ledger: `send_task` and `apply_async`, a message each, through Harbor's own app."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import redis as client

from bench import redis
from bench.measure import check
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KEYS: Final = "harbor:"  # celeryconfig's global_keyprefix.
_PRIORITIES: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")  # kombu has a list for each priority of a queue.
QUEUE: Final = "bulk"


@dataclass(frozen=True, slots=True)
class Publisher:
    """A producer of Harbor's app on a broker that nobody else uses, with a connection that stays open.

    It is given to each call, which spares the rival the look into the pool that the app makes otherwise.
    """

    broker_url: str
    producer: Any
    _redis: Any

    def send_task(self, rows: int) -> float:
        """Return the rows per second of one `send_task` per row."""
        from worker.celery import app

        def send() -> None:
            app.send_task("bench.rest", queue=QUEUE, producer=self.producer)

        return self._timed(send, rows)

    def apply_async(self, rows: int) -> float:
        """Return the rows per second of one `apply_async` per row, of a task declared as every task is."""
        from bench.worker.harbor import rest

        def apply() -> None:
            rest.apply_async(queue=QUEUE, producer=self.producer)

        return self._timed(apply, rows)

    def _timed(self, publish: Callable[[], object], rows: int) -> float:
        began = time.perf_counter()
        for _ in range(rows):
            publish()
        seconds = time.perf_counter() - began
        self.take_away(rows, QUEUE)
        return rows / seconds

    def take_away(self, rows: int, queue: str) -> None:
        """Check that a queue of the broker holds a message for each of `rows` rows, and delete them.

        Raises:
            CheckFailedError: it holds more, or fewer.
        """
        lists = [f"{_KEYS}{queue}{priority}" for priority in _PRIORITIES]
        waiting = sum(self._redis.llen(name) for name in lists)
        self._redis.delete(*lists)
        check(f"{waiting} of {rows} messages were published", right=waiting == rows)


@contextmanager
def publishing() -> Iterator[Publisher]:
    """Yield a publisher on an empty broker."""
    # The app is configured when it is imported, by an environment that this module's import is too early for.
    from worker.celery import app

    with (
        redis.empty(settings().broker_url.get_secret_value()) as broker_url,
        client.Redis.from_url(broker_url) as server,
        app.connection_for_write(url=broker_url) as connection,
        app.amqp.Producer(connection, serializer="json") as producer,
    ):
        yield Publisher(broker_url, producer, server)
