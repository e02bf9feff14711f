"""A database for one demo, so that it never meets anybody's data and nobody meets its own."""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from sqlalchemy.engine import make_url

from db import engine
from db.settings import settings
from demo.errors import DemoError
from demo.process import ROOT
from demo.shoppers import SHOPPERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL

# The screen asks for its numbers while all shoppers are busy.
_CONCURRENCY: Final = SHOPPERS + 1


@contextmanager
def fresh(servers: Mapping[str, str], *, keep: bool) -> Iterator[URL]:
    """Make a migrated database on these servers and point this process and its children to it.

    Args:
        servers: the three URLs.
        keep: leave the database there at the end.

    Raises:
        DemoError: the server cannot be reached, or does not let us make a database.
        SettingsError: a URL is malformed.
    """
    _use(servers)
    server = make_url(settings().database_url.get_secret_value())
    mine = server.set(database=f"harbor_demo_{uuid4().hex[:8]}")
    _administer(server, "CREATE DATABASE {}", mine)
    try:
        _use({"HARBOR_DATABASE_URL": mine.render_as_string(hide_password=False)})
        engine.configure(application_name="harbor-demo", concurrency=_CONCURRENCY)
        command.upgrade(Config(toml_file=ROOT / "pyproject.toml", stdout=io.StringIO()), "head")
        yield mine
    finally:
        engine.dispose()
        if not keep:
            _administer(server, "DROP DATABASE {} WITH (FORCE)", mine)


def psql_url(url: URL) -> str:
    """Return a URL as psql takes it, password included."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _use(environ: Mapping[str, str]) -> None:
    # In dev a process also tells what prod keeps to itself, and its log can be read by a person.
    os.environ.update(environ, HARBOR_ENV="dev")
    settings.cache_clear()


def _administer(server: URL, statement: str, mine: URL) -> None:
    try:
        with psycopg.connect(psql_url(server), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(mine.database or "")))
    except psycopg.Error as error:
        reason = str(error).partition("\n")[0]
        raise DemoError(f"HARBOR_DATABASE_URL leads to no server for a demo: {reason}") from None
