"""Migrations hold a session: behind a pooler they take HARBOR_DATABASE_DIRECT_URL, or refuse and name it."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.util import CommandError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from db.settings import settings
from tests.conftest import alembic_config, str_url
from tests.processes import program, run


@pytest.fixture
def pooled(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The environment of a process whose database is behind a pooler."""
    monkeypatch.setenv("HARBOR_DATABASE_POOLER", "transaction")
    settings.cache_clear()
    return {**environ, "HARBOR_DATABASE_POOLER": "transaction"}


@pytest.fixture
def nowhere(pooled: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of the database itself, once HARBOR_DATABASE_URL leads to a port that nobody listens on."""
    direct = pooled["HARBOR_DATABASE_URL"]
    monkeypatch.setenv("HARBOR_DATABASE_URL", str_url(make_url(direct).set(port=1)))
    settings.cache_clear()
    return direct


def test_without_a_direct_url_migrations_refuse_and_name_it(pooled: dict[str, str]) -> None:
    with pytest.raises(CommandError, match=r"HARBOR_DATABASE_DIRECT_URL is not set"):
        command.upgrade(alembic_config(), "head")


def test_the_operator_is_told_in_one_line(pooled: dict[str, str]) -> None:
    answer = run([program("harbor"), "db", "upgrade"], pooled)

    assert answer.returncode == 1
    assert "HARBOR_DATABASE_DIRECT_URL is not set" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_migrations_take_the_direct_url(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_DATABASE_DIRECT_URL", nowhere)
    settings.cache_clear()

    command.downgrade(alembic_config(), "-1")
    command.upgrade(alembic_config(), "head")


def test_migrations_do_not_take_the_poolers_url(nowhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARBOR_DATABASE_POOLER")
    settings.cache_clear()

    with pytest.raises(OperationalError, match="refused"):
        command.upgrade(alembic_config(), "head")
