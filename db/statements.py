"""What the statements of this process tell: each one that takes long, and a task that sends one again and again.

A line carries a statement as it was sent, with its placeholders, and never a value that was bound to one. Nothing here
fails: to be slow or to repeat oneself is worth a line and no more.
"""

from __future__ import annotations

import select
import time
from collections import defaultdict
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import event
from sqlalchemy.dialects import postgresql

from db.log import one_line, warn
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection, CursorResult, Engine, TextClause

    from db.jobs.claim import Claim

_TRUSTED_SECONDS = 1.0

# SQLAlchemy numbers savepoints, so that each would be a statement of its own; they are how work is done and not what.
_SAVEPOINTS = ("SAVEPOINT ", "RELEASE SAVEPOINT ", "ROLLBACK TO SAVEPOINT ")


@dataclass(slots=True)
class TaskScope:
    """One run of a task: how many transactions it has opened and how many statements it has sent."""

    task: str
    repeatable: bool
    opened: int = 0
    statements: int = 0
    # The claim of the job that is run; a message without a row in the ledger has none.
    claim: Claim | None = None
    # By connection, since a snapshot may be open inside a transaction: what the open transaction of each has sent.
    _sent: dict[psycopg.Connection[Any], dict[str, int]] = field(default_factory=dict)
    _warned: bool = False

    def sends(self, connection: psycopg.Connection[Any], statement: str) -> None:
        """Count a statement; warn once when a transaction sends one more than HARBOR_REPEATED_STATEMENTS times.

        Then it is most likely sent for each of many rows, a round trip each, where one statement for all would do. Work
        in batches, one transaction each, repeats its statements for a reason.
        """
        if statement.startswith(_SAVEPOINTS):
            return
        self.statements += 1
        sent = self._sent.get(connection)
        if sent is None or connection.pgconn.transaction_status == TransactionStatus.IDLE:
            sent = self._sent[connection] = defaultdict(int)
        sent[statement] += 1
        if sent[statement] > settings().repeated_statements and not self._warned:
            self._warned = True
            warn(
                __name__,
                "task.repeats_a_statement",
                task=self.task,
                statement=one_line(statement),
                count=sent[statement],
            )


current: ContextVar[TaskScope | None] = ContextVar("harbor_task_scope", default=None)


class TimedConnection(psycopg.Connection[Any]):
    """A connection that tells of a slow COMMIT, for which SQLAlchemy has an event before it and none after it.

    `ready` is false while SQLAlchemy asks a new server who it is; no task has sent that.
    """

    ready: bool = False
    _answered_at: float = 0.0

    def commit(self) -> None:
        """Commit the open transaction."""
        started = time.perf_counter()
        try:
            super().commit()
        except BaseException as error:
            _tell_if_slow("COMMIT", started, outcome=type(error).__name__)
            raise
        _tell_if_slow("COMMIT", started, outcome="done")
        self._answered_at = time.monotonic()

    def seems_alive(self) -> bool:
        """Whether the server has answered within the last second and has said nothing since, not even goodbye.

        One that shuts down or is told to end a connection says so, which can be seen without a round trip.
        """
        if time.monotonic() - self._answered_at > _TRUSTED_SECONDS:
            return False
        poll = select.poll()
        poll.register(self.pgconn.socket, select.POLLIN)
        return not poll.poll(0)


def watch(engine: Engine) -> None:
    """Let every statement of an engine be timed, and counted when a task sends it; ping what has long been silent only.

    The events are the dialect's and not the connection's (`before_cursor_execute`, `begin`): for one listener of those
    SQLAlchemy joins two dispatchers for each Connection that it makes, which costs 30 µs per transaction (measured).
    """
    ping = engine.dialect.do_ping

    def ping_unless_alive(connection: Any) -> bool:
        return connection.seems_alive() or ping(connection)

    # A ping is a round trip for each transaction. There is no event that could stand in for it.
    engine.dialect.do_ping = ping_unless_alive  # type: ignore[method-assign, assignment]
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "connect", _get_ready)
    event.listen(engine, "do_execute", _execute)
    event.listen(engine, "do_executemany", _executemany)


def send_as_it_is(connection: Connection, statement: TextClause, values: dict[str, Any]) -> CursorResult[Any]:
    """Send a statement that is sent for every job, past SQLAlchemy's own preparations, which take longer than the rest.

    Rows have what the driver makes of them, which for all types here is what SQLAlchemy would make of them, too.
    """
    return connection.exec_driver_sql(_compiled(statement), values)


@lru_cache
def _compiled(statement: TextClause) -> str:
    dialect: Any = postgresql.psycopg.dialect
    return str(statement.compile(dialect=dialect()))


def _connect(_dialect: object, _record: object, places: list[Any], words: dict[str, Any]) -> TimedConnection:
    return TimedConnection.connect(*places, **words)


def _get_ready(connection: Any, _record: object) -> None:
    connection.ready = True


def _execute(cursor: Any, statement: str, values: Any, _context: object) -> Literal[True]:
    return _send(cursor.execute, cursor, statement, values)


def _executemany(cursor: Any, statement: str, values: Any, _context: object) -> Literal[True]:
    return _send(cursor.executemany, cursor, statement, values)


def _send(send: Callable[[str, Any], object], cursor: Any, statement: str, values: Any) -> Literal[True]:
    """Send a statement in SQLAlchemy's place, and say that it has been sent."""
    scope = current.get()
    if scope is not None and cursor.connection.ready:
        scope.sends(cursor.connection, statement)
    started = time.perf_counter()
    try:
        send(statement, values)
    except BaseException as error:
        _tell_if_slow(statement, started, outcome=type(error).__name__)
        raise
    _tell_if_slow(statement, started, outcome="done", rows=cursor.rowcount)
    return True


def _tell_if_slow(statement: str, started: float, **told: Any) -> None:
    milliseconds = (time.perf_counter() - started) * 1_000
    if milliseconds > settings().slow_query_ms:
        warn(__name__, "query.slow", statement=one_line(statement), milliseconds=round(milliseconds, 1), **told)
