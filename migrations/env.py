"""Alembic's entry: one migrator at a time, one transaction per migration, and no step that waits long for a lock.

A migration that waits for a lock makes every later query on that table wait behind it, so it gives up after three
seconds and can be run again. The migrators' own lock is a session lock that is polled and not waited for: a session
blocked in pg_advisory_lock holds a snapshot, which CREATE INDEX CONCURRENTLY waits for, and PostgreSQL calls that a
deadlock. Both need a session of their own, so behind a pooler the connection is HARBOR_DATABASE_DIRECT_URL's.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from alembic import context
from alembic.util import CommandError
from sqlalchemy import create_engine, pool, text

import db.jobs
import db.reservations
import db.schedule
from db.errors import HarborError
from db.schema import Base
from db.settings import settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

TIMEOUTS: Final = {"lock_timeout": "3s", "statement_timeout": "60s", "idle_in_transaction_session_timeout": "60s"}
_MIGRATION_LOCK: Final = 0x4841_5242  # "HARB": any number will do, as long as every migrator uses the same.
_LOCK_WAIT_SECONDS: Final = 120
_LOCK_POLL_SECONDS: Final = 0.2

# Importing these registers every table.
target_metadata = db.reservations.StockReservation.metadata
assert target_metadata is Base.metadata


def _take_migration_lock(connection: Connection) -> None:
    deadline = time.monotonic() + _LOCK_WAIT_SECONDS
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": _MIGRATION_LOCK}).scalar():
        if time.monotonic() > deadline:
            raise CommandError(f"another migration has run for {_LOCK_WAIT_SECONDS} s; try again when it ended")
        time.sleep(_LOCK_POLL_SECONDS)


def _run_online() -> None:
    engine = create_engine(
        settings().direct_url(),
        poolclass=pool.NullPool,
        hide_parameters=True,
        connect_args={
            "application_name": "harbor-migrate",
            "connect_timeout": 5,
            # As options of the connection, so that a migration which lifts one comes back to it by RESET.
            "options": " ".join(f"-c {name}={value}" for name, value in TIMEOUTS.items()),
        },
    )
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT")
        _take_migration_lock(connection)
        # Alembic takes a transaction that is open at `configure` for the caller's and would exit 0 with nothing kept.
        connection.commit()
        connection.execution_options(isolation_level="READ COMMITTED")
        context.configure(
            connection=connection,
            target_metadata=target_metadata,
            transaction_per_migration=True,
            compare_server_default=True,
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


def _run_offline() -> None:
    context.configure(
        dialect_name="postgresql",
        target_metadata=target_metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    for name, value in TIMEOUTS.items():
        context.execute(f"SET {name} = '{value}'")
    with context.begin_transaction():
        context.run_migrations()


try:
    _run_offline() if context.is_offline_mode() else _run_online()
except HarborError as error:
    raise CommandError(str(error)) from None
