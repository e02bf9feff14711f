"""Alembic as `alembic` at the root runs it, on a database of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory

from tests.conftest import alembic_config
from tests.db.sql import change

if TYPE_CHECKING:
    from alembic.config import Config


@pytest.fixture
def alembic(environ: dict[str, str]) -> Config:
    """Alembic's configuration; the database is migrated to the head."""
    return alembic_config()


@pytest.fixture
def empty(alembic: Config) -> Config:
    """The same with nothing in the database."""
    empty_the_database()
    return alembic


def empty_the_database() -> None:
    """Leave a schema as a new database has it."""
    change("DROP SCHEMA public CASCADE")
    change("CREATE SCHEMA public")


def head_of(config: Config) -> str:
    """The newest revision."""
    head = ScriptDirectory.from_config(config).get_current_head()
    assert head is not None
    return head
