"""`harbor relay`: takes due jobs from the ledger to the broker. Any number of them, each of which may die anywhere.

Promise: no job waits for a relay that is gone, and none is lost with the broker. A broker that fails in the middle of a
batch leaves it uncertain what has arrived: nothing of it is counted, the sweep publishes those rows again, and a copy
too many is dropped when it is claimed.
"""

from __future__ import annotations

import random
import signal
import threading
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
from kombu.exceptions import KombuError
from sqlalchemy.exc import SQLAlchemyError

from db import engine, failpoints, jobs
from db.session import transaction
from db.settings import POOLS, settings
from worker.celery import app
from worker.envelope import Envelope
from worker.logging import configure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kombu import Connection

log = structlog.get_logger()

POLL_SECONDS: Final = 0.05
SWEEP_SECONDS: Final = 5.0
_TRUSTED_SECONDS: Final = (
    600.0  # A row is published again every 10 minutes at the most, whatever the broker seems to have.
)
_SWEEP_LIMIT: Final = 1_000
_LONGEST_PAUSE_SECONDS: Final = 10.0


class Breaker:
    """Keeps a relay from leasing jobs for a broker, or from a database, that does not answer.

    Each failure doubles the pause, of which a random share is waited (full jitter), so that relays do not come back in
    step.
    """

    def __init__(self) -> None:
        self._failures = 0

    def failed(self) -> float:
        """Return how many seconds to wait before the next try."""
        self._failures += 1
        return random.uniform(0.1, min(_LONGEST_PAUSE_SECONDS, 0.25 * 2**self._failures))  # noqa: S311 - jitter

    def worked(self) -> None:
        """Forget the failures."""
        self._failures = 0

    @property
    def closed(self) -> bool:
        """Whether the last try worked."""
        return self._failures == 0


class Relay:
    """One relay: leases, publishes, sweeps, until it is asked to stop.

    Args:
        alive: a file that is touched after each round that worked, for whoever watches over this process.
    """

    def __init__(self, alive: Path | None = None) -> None:
        told = settings()
        self._alive = alive
        self._republish_seconds = told.job_republish_seconds
        self._envelope = Envelope(app)
        self._breaker = Breaker()
        self._connection: Connection | None = None
        self._producer: Any = None
        # Several that were started at the same moment sweep at different ones.
        self._sweep_at = time.monotonic() + random.uniform(0, SWEEP_SECONDS)  # noqa: S311 - jitter
        self._stopped = threading.Event()

    def stop(self) -> None:
        """Let `run` return after the batch at hand."""
        self._stopped.set()

    def run(self) -> None:
        """Relay until `stop` is called. Nothing that the database or the broker does ends it."""
        while not self._stopped.is_set():
            self._stopped.wait(self._turn())
        self._disconnect()

    def _turn(self) -> float:
        """Do one round and return how many seconds to wait before the next."""
        try:
            # Without a broker nothing is leased: a lease that cannot be published only makes its jobs late.
            producer = self._connected()
            if time.monotonic() >= self._sweep_at:
                self._sweep_at = time.monotonic() + SWEEP_SECONDS
                self._sweep()
            published = self._publish_due(producer)
        except SQLAlchemyError as error:
            return self._pause("relay.database_failed", error)
        except _broker_errors() as error:
            self._disconnect()
            return self._pause("relay.broker_failed", error)
        if not self._breaker.closed:
            log.info("relay.resumed")
        self._breaker.worked()
        if self._alive is not None:
            self._alive.touch()
        return 0.0 if published == jobs.LEASE_LIMIT else POLL_SECONDS

    def _publish_due(self, producer: Any) -> int:
        with transaction() as session:
            messages = jobs.lease(session, self._republish_seconds)
            if messages:
                failpoints.reach("relay.leased")
        if messages:
            failpoints.reach("relay.marked")
            self._publish(producer, messages)
            failpoints.reach("relay.published")
        return len(messages)

    def _publish(self, producer: Any, messages: Sequence[jobs.Message]) -> None:
        try:
            with producer.batch(max_size=jobs.LEASE_LIMIT):
                for message in messages:
                    producer.publish(**self._envelope.of(message))
        except Exception:
            log.warning("relay.uncertain", jobs=len(messages), again_after_seconds=self._republish_seconds)
            with transaction() as session:
                jobs.uncount(session, messages, self._republish_seconds)
            raise
        log.debug("relay.published", jobs=len(messages))

    def _sweep(self) -> None:
        """Do every sweep. One that fails, since somebody keeps a row locked, keeps no job from being published."""
        spared = self._spared()
        for name in jobs.SWEEPS:
            swept = _SWEEP_LIMIT
            while swept >= _SWEEP_LIMIT and not self._stopped.is_set():
                try:
                    with transaction() as session:
                        swept = jobs.sweep_one(session, name, _SWEEP_LIMIT, spared)
                except SQLAlchemyError as error:
                    log.warning("relay.sweep_failed", reason=name, error=type(error).__name__)
                    break
                if swept:
                    log.warning("relay.swept", reason=name, jobs=swept)

    def _spared(self) -> list[str]:
        """Return the queues whose messages are all where they belong: their workers are behind, and nothing is lost.

        Publishing those jobs again would only fill the broker with copies, each of which costs a worker a claim. What
        workers have taken and not claimed yet is known for all queues together alone, so it is trusted for some
        minutes, and only while messages wait.
        """
        with transaction() as session:
            waiting = jobs.overdue(session)
        if not waiting:
            return []
        channel: Any = self._producer.channel
        with channel.conn_or_acquire() as client:
            unacked = sum(client.hlen(f"unacked:{pool}") for pool in POOLS)
        spared = []
        for told in waiting:
            messages = channel._size(told.queue)  # noqa: SLF001 - public as queue_declare, which would bind it anew
            taken = max(0, unacked - told.running) if messages and told.overdue_seconds < _TRUSTED_SECONDS else 0
            if messages + taken >= told.jobs:
                spared.append(told.queue)
        return spared

    def _connected(self) -> Any:
        if self._producer is None:
            connection = self._connection = app.connection_for_write()
            connection.connect()
            producer: Any = connection.Producer(serializer="json")
            if not producer.supports_batch_publish:
                raise RuntimeError("the broker's transport options switch kombu's batches off")
            self._producer = producer
        return self._producer

    def _disconnect(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            connection.release()

    def _pause(self, event: str, error: BaseException) -> float:
        pause_seconds = self._breaker.failed()
        log.warning(event, error=type(error).__name__, again_in_seconds=round(pause_seconds, 2))
        return pause_seconds


def _broker_errors() -> tuple[type[BaseException], ...]:
    """Return what the broker's client raises when it cannot be reached, or answers that it cannot do its work."""
    transport: Any = app.connection_for_write().transport
    # kombu wraps what fails in the middle of a batch in an error of its own, which is none of the transport's.
    return (OSError, KombuError, *transport.connection_errors, *transport.channel_errors)


def main(alive: Path | None = None) -> None:
    """Run a relay until SIGTERM or SIGINT; `alive` is a file that it touches after each round that worked."""
    configure(settings())
    engine.configure(application_name="harbor-relay", concurrency=1)
    relay = Relay(alive)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: relay.stop())
    log.info("relay.started")
    relay.run()
    log.info("relay.stopped")
