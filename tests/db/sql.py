"""Plain SQL beside Harbor's own functions: to look, to arrange what no function can, and to stand in the way."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import event, text

from db import engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

_DEADLINE_SECONDS = 20


def rows(statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """What a query answers now, in a transaction of its own."""
    with engine.engine().connect() as connection:
        return [tuple(row) for row in connection.execute(text(statement), values)]


def value(statement: str, **values: Any) -> Any:
    """The first column of the first row."""
    return rows(statement, **values)[0][0]


def change(statement: str, **values: Any) -> int:
    """Commit a statement that no function of Harbor would make, and return how many rows it met."""
    with engine.engine().begin() as connection:
        return connection.execute(text(statement), values).rowcount


def make_due(*reservation_ids: int) -> None:
    """Let the time of these holds be over, in the order given, without waiting for it."""
    for place, reservation_id in enumerate(reservation_ids):
        change(
            "UPDATE stock_reservations SET expires_at = statement_timestamp() - interval '1 hour'"
            " + :place * interval '1 second' WHERE id = :id",
            place=place,
            id=reservation_id,
        )


def everything() -> dict[str, list[tuple[Any, ...]]]:
    """Every row of the tables that stock lives in: equal before and after means that nothing was written."""
    tables = (
        "products",
        "variants",
        "stock_reservations",
        "stock_reservation_lines",
        "stock_movements",
        "required_refunds",
    )
    with engine.engine().connect() as connection:
        return {
            table: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))]
            for table in tables
        }


def touched_nothing(session: Session) -> bool:
    """Whether the transaction has neither written nor locked a row: PostgreSQL gives a number to one that has."""
    return session.execute(text("SELECT pg_current_xact_id_if_assigned() IS NULL")).scalar_one() is True


@contextmanager
def locked(statement: str, **values: Any) -> Iterator[Connection]:
    """Run a statement in another connection and keep its locks until the end of the block."""
    with engine.engine().connect() as connection:
        connection.execute(text(statement), values)
        yield connection
        connection.rollback()


@contextmanager
def recorded() -> Iterator[list[str]]:
    """The statements that this process sends during the block."""
    sent: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        sent.append(statement)

    event.listen(engine.engine(), "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine.engine(), "before_cursor_execute", note)


@contextmanager
def meanwhile(about: str, act: Callable[[], object]) -> Iterator[None]:
    """Let `act` happen each time this process is about to send a statement that has `about` in it."""
    inside = False

    def interrupt(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        nonlocal inside
        if about in statement and not inside:
            inside = True
            act()
            inside = False

    event.listen(engine.engine(), "before_cursor_execute", interrupt)
    try:
        yield
    finally:
        event.remove(engine.engine(), "before_cursor_execute", interrupt)


def eventually(condition: Callable[[], bool]) -> None:
    """Return as soon as a condition is true; fail when it is not by the deadline."""
    deadline = time.monotonic() + _DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        os.sched_yield()


def somebody_waits_for_a_lock(connections: int = 1) -> bool:
    """Whether so many connections to this test's database are waiting for another's lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return int(value(waiting)) >= connections
