"""One migrated database for all tests of `db`, empty at the start of each: making one per test takes longer than most.

A test that changes the schema, or counts what its server does, asks for `environ` and has a database of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db import engine
from db.settings import settings
from tests.conftest import str_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_TABLES = (
    *("jobs", "schedules", "queue_control", "operator_actions"),
    *("required_refunds", "stock_reservations", "stock_movements", "products"),
)


@pytest.fixture(scope="session")
def shared(servers: dict[str, str], template: str) -> Iterator[dict[str, str]]:
    """The environment of the database that these tests share."""
    url = make_url(servers["HARBOR_DATABASE_URL"])
    name = f"harbor_shared_{uuid4().hex[:8]}"
    with psycopg.connect(str_url(url.set(drivername="postgresql")), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        yield {**servers, "HARBOR_DATABASE_URL": str_url(url.set(database=name))}
        engine.dispose()
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def database(shared: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The shared database, empty, as this process's own. Its connections are kept for the next test."""
    for name, value in shared.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    if engine.engine().url != make_url(shared["HARBOR_DATABASE_URL"]):
        engine.dispose()
    with engine.engine().begin() as connection:
        for table in _TABLES:
            connection.execute(text(f"DELETE FROM {table}"))
    yield
    settings.cache_clear()


@pytest.fixture
def restart(database: None) -> Iterator[Callable[[], None]]:
    """Lets this process read its environment anew, as one that starts does, and forgets at the end what it found."""

    def again() -> None:
        settings.cache_clear()
        engine.dispose()

    yield again
    again()
