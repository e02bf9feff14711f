"""A service's session on Harbor's database; the tests share the database of tests/db."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from db.settings import settings
from tests import ledger
from tests.db.conftest import database, shared
from tests.db.wrong_jobs import TASK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

__all__ = ["database", "shared"]


@pytest.fixture
def url(database: None) -> str:
    """Where Harbor's database is, which knows one more task: TASK."""
    ledger.make_type(TASK, reservation_id=["integer"], payment_ref=["string"])
    return settings().database_url.get_secret_value()


@pytest.fixture
def engine(url: str) -> Engine:
    """A service's own engine."""
    return create_engine(url, poolclass=NullPool)


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    """A service's own session, which a test need not commit."""
    with Session(engine) as session:
        yield session
