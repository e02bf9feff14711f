"""One engine per process, made after fork, with as many connections as the process can use and no more.

A connection that two processes share mixes their replies, so the engine is remembered together with the id of the
process that made it: a forked child drops its parent's engine without touching the parent's sockets and makes its own.

Every transaction has time limits and the time zone UTC, on a connection of PostgreSQL itself as well as on one that
PgBouncer lends for a transaction.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import Engine, create_engine, event

from db import statements
from db.pool import CountedPool
from db.settings import settings

if TYPE_CHECKING:
    from sqlalchemy import Connection
    from sqlalchemy.engine import ExceptionContext

    from db.pool import PoolCounters
    from db.settings import Settings

_RECYCLE_SECONDS = 1_800  # Below the idle limits of common proxies and firewalls, the shortest of which is an hour.
_CONNECT_TIMEOUT_SECONDS = 5
_SPARE_CONNECTIONS = 2  # A job's lease is extended while the job holds a transaction, and a snapshot beside it.


@dataclass(frozen=True, slots=True)
class _Role:
    """What this process is: its name in pg_stat_activity and how many of its threads use the database at once."""

    application_name: str = "harbor"
    concurrency: int | None = None


@dataclass(frozen=True, slots=True)
class _Owned:
    pid: int
    engine: Engine


_role = _Role()
_owned: _Owned | None = None
_making = threading.Lock()  # Threads that ask first at the same moment must not make an engine each.


def _forget_the_lock() -> None:
    """Give a forked child a lock of its own: the parent's may be held by a thread that the child does not have."""
    global _making  # noqa: PLW0603
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget_the_lock)


def configure(*, application_name: str, concurrency: int) -> None:
    """Say what this process is. Call before its first query.

    Args:
        application_name: how the process shows in pg_stat_activity, such as `harbor-worker-expiry`.
        concurrency: how many of its threads use the database at once; 1 in a prefork child.
    """
    global _role  # noqa: PLW0603 - one role per process is the promise
    _role = _Role(application_name, concurrency)
    dispose()


def engine() -> Engine:
    """Return this process's engine; the first call in a process makes it.

    Raises:
        SettingsError: HARBOR_DATABASE_URL is missing or malformed.
    """
    global _owned  # noqa: PLW0603 - one engine per process is the promise
    owned = _owned
    if owned is None or owned.pid != os.getpid():
        with _making:
            owned = _owned
            if owned is None or owned.pid != os.getpid():
                dispose()
                owned = _owned = _Owned(os.getpid(), _create())
    return owned.engine


def dispose() -> None:
    """Close this process's connections. Those inherited by a fork are forgotten, not closed: they are the parent's."""
    global _owned  # noqa: PLW0603
    if _owned is not None:
        _owned.engine.dispose(close=_owned.pid == os.getpid())
        _owned = None


def pool_counters() -> PoolCounters:
    """Return what this process has waited for connections since its engine was made.

    Raises:
        SettingsError: HARBOR_DATABASE_URL is missing or malformed.
    """
    pool = engine().pool
    assert isinstance(pool, CountedPool)
    return pool.counters()


def _create() -> Engine:
    told = settings()
    pooled = told.database_pooler == "transaction"
    made = create_engine(
        told.database_url.get_secret_value(),
        poolclass=CountedPool,
        pool_size=(_role.concurrency or told.database_concurrency) + _SPARE_CONNECTIONS,
        max_overflow=0,
        pool_pre_ping=True,
        pool_recycle=_RECYCLE_SECONDS,
        pool_timeout=told.pool_timeout_ms / 1_000,
        # Bind values may be personal data and payment references: errors and logs show the statement without them.
        hide_parameters=True,
        connect_args={
            # PgBouncer passes it on: each of its clients shows under its own name on any connection it is lent.
            "application_name": _role.application_name,
            "connect_timeout": _CONNECT_TIMEOUT_SECONDS,
            # Behind PgBouncer a connection is another one in the next transaction: what was prepared is not there, and
            # `options`, which are the session's, are refused.
            **({"prepare_threshold": None} if pooled else {"options": _options(told)}),
        },
    )
    event.listen(made, "handle_error", _say_no_values)
    statements.watch(made)
    if pooled:
        _limit_each_transaction(made, told)
    return made


def _limits(told: Settings) -> dict[str, object]:
    return {
        "statement_timeout": told.statement_timeout_ms,
        "lock_timeout": told.lock_timeout_ms,
        "idle_in_transaction_session_timeout": told.idle_in_transaction_timeout_ms,
        "timezone": "UTC",
    }


def _options(told: Settings) -> str:
    return " ".join(f"-c {name}={value}" for name, value in _limits(told).items())


def _limit_each_transaction(made: Engine, told: Settings) -> None:
    """Let each transaction begin with one statement that sets its limits, which end with it and limit nobody else.

    It is a query, so what a snapshot sees is the moment at which it begins.
    """
    statement = "SELECT " + ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _limits(told).items())

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql(statement).close()

    event.listen(made, "begin", limit)


def _say_no_values(context: ExceptionContext) -> None:
    """Cut an error's text to PostgreSQL's first sentence: its DETAIL repeats values. `orig.diag` keeps everything."""
    error = context.original_exception
    sentence = getattr(getattr(error, "diag", None), "message_primary", None)
    if sentence is not None:
        error.args = (sentence,)
        if context.sqlalchemy_exception is not None:
            context.sqlalchemy_exception.args = (f"({type(error).__module__}.{type(error).__name__}) {sentence}",)
