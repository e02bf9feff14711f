"""A database of the bench's own, made by the migrations, used by this process and its children, dropped at the end.

Promise: a bench never touches a row that it did not make itself, and leaves nothing behind on the server.
"""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import make_url

import stack
from db import engine
from db.session import transaction
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL

_PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@contextmanager
def fresh() -> Iterator[None]:
    """Point this process and its children to a new, migrated database; drop it when the block ends.

    The servers are those of the environment, or embedded ones for the length of the block.
    """
    with stack.running() as servers:
        url = make_url(servers.environ["HARBOR_DATABASE_URL"])
        name = f"harbor_bench_{uuid4().hex[:8]}"
        _administer(url, f'CREATE DATABASE "{name}"')
        before = dict(os.environ)
        try:
            _use({**before, **servers.environ, "HARBOR_DATABASE_URL": _complete(url.set(database=name))})
            command.upgrade(Config(toml_file=_PROJECT, stdout=io.StringIO()), "head")
            yield
        finally:
            _use(before)
            _administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _use(environ: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(environ)
    settings.cache_clear()
    engine.dispose()


def _administer(url: URL, statement: str) -> None:
    """Run a statement that does not work inside a transaction."""
    with psycopg.connect(_complete(url.set(drivername="postgresql")), autocommit=True) as connection:
        connection.execute(statement.encode())


def _complete(url: URL) -> str:
    """Return the URL with its password, as the environment holds it."""
    return url.render_as_string(hide_password=False)


def server_version() -> str:
    """Return the version of PostgreSQL, such as `18.1`."""
    with transaction() as session:
        version: str = session.execute(text("SHOW server_version")).scalar_one()
    return version


def vacuum() -> None:
    """Vacuum and analyze, as autovacuum has done by the time a real shop has this many rows."""
    _administer(make_url(settings().database_url.get_secret_value()), "VACUUM (ANALYZE)")
