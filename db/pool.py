"""A pool of connections that counts what its users wait for, and says so when one waits long.

The counts are those of one process: a forked child makes an engine of its own, and with it a pool that starts at zero.
"""

from __future__ import annotations

import threading
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import event
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from db.log import warn
from db.settings import settings

if TYPE_CHECKING:
    from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

_FRESH = "harbor_fresh"


@dataclass(frozen=True, slots=True)
class PoolCounters:
    """What a pool has seen since it was made; `checked_out` and `overflow` are connections at this moment.

    A wait lasts until a connection is there and has answered a ping, so it is never quite zero. A checkout that had to
    connect first is counted and not timed: it waited for the server and not for a connection that somebody else had.
    """

    checkouts: int
    waited_ms: float
    worst_wait_ms: float
    timeouts: int
    checked_out: int
    overflow: int


class CountedPool(QueuePool):
    """A QueuePool that times its checkouts.

    It overrides `connect`, which is public and which every checkout of an engine goes through. SQLAlchemy's event
    `checkout` comes after the wait, with none at its beginning and none at all when the wait ends in a timeout; the
    queue itself is waited for in `_do_get`, which is private.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._counting = threading.Lock()
        self._checkouts = self._timeouts = 0
        self._waited_ms = self._worst_wait_ms = 0.0
        event.listen(self, "connect", _mark_as_fresh)

    def connect(self) -> PoolProxiedConnection:
        """Return a connection of the pool, as QueuePool does, and count the wait for it."""
        started = time.perf_counter()
        try:
            connection = super().connect()
        except PoolTimeoutError:
            with self._counting:
                self._timeouts += 1
            self._tell("pool.timeout", started)
            raise
        fresh = connection.info.pop(_FRESH, False)
        waited_ms = 0.0 if fresh else _milliseconds_since(started)
        with self._counting:
            self._checkouts += 1
            self._waited_ms += waited_ms
            self._worst_wait_ms = max(self._worst_wait_ms, waited_ms)
        if waited_ms > settings().slow_query_ms:
            self._tell("pool.slow_checkout", started)
        return connection

    def counters(self) -> PoolCounters:
        """Return what the pool has counted."""
        with self._counting:
            return PoolCounters(
                checkouts=self._checkouts,
                waited_ms=round(self._waited_ms, 1),
                worst_wait_ms=round(self._worst_wait_ms, 1),
                timeouts=self._timeouts,
                checked_out=self.checkedout(),
                # Below zero while the pool has not yet made all its connections.
                overflow=max(0, self.overflow()),
            )

    def _tell(self, told: str, started: float) -> None:
        warn(__name__, told, milliseconds=round(_milliseconds_since(started), 1), **asdict(self.counters()))


def _mark_as_fresh(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info[_FRESH] = True


def _milliseconds_since(started: float) -> float:
    return (time.perf_counter() - started) * 1_000
