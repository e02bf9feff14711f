"""A clock that a test sets: one session takes another moment for the present, or stops where it asks for the time."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import text

from db.session import transaction
from tests.db.sql import change, locked

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from datetime import datetime

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

_GATE = 314_159

# Volatile, so that it is asked while a statement runs and not while it is planned: what the statement sees of the rows
# is then already settled.
_CLOCK = f"""
CREATE OR REPLACE FUNCTION clock.statement_timestamp() RETURNS timestamptz VOLATILE LANGUAGE plpgsql AS $$
BEGIN
  IF current_setting('clock.gate') = 'on' THEN PERFORM pg_advisory_xact_lock_shared({_GATE}); END IF;
  RETURN current_setting('clock.now');
END $$"""

_SET = text("""
SELECT set_config('clock.now', :now, true), set_config('clock.gate', :gate, true),
       set_config('search_path', 'clock, public, pg_catalog', true)
""")


@contextmanager
def at(moment: datetime, *, gate: bool = False) -> Iterator[Session]:
    """Open a transaction in which it is `moment` and time stands still.

    With `gate` a statement that asks for the time waits, with its view of the rows taken, while the gate is closed.
    """
    change("CREATE SCHEMA IF NOT EXISTS clock")
    change(_CLOCK)
    with transaction() as session:
        session.execute(_SET, {"now": moment.isoformat(), "gate": "on" if gate else "off"})
        yield session


def closed_gate() -> AbstractContextManager[Connection]:
    """Keep the gate closed for the length of the block."""
    return locked("SELECT pg_advisory_xact_lock(:gate)", gate=_GATE)
