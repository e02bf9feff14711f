"""Databases of the bench's own, made by the migrations, used by this process and its children, dropped at the end.

Promise: a bench never touches a row or a key that it did not make itself, and leaves nothing behind on the servers.
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
from bench import redis
from db import engine
from db.session import transaction
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import URL

_DATABASE_URLS = ("HARBOR_DATABASE_URL", "HARBOR_DATABASE_DIRECT_URL")
_QUIET = {"HARBOR_SLOW_QUERY_MS": "3600000"}  # To load a million rows is slow, and nothing to be told of.
_PROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


@contextmanager
def fresh() -> Iterator[None]:
    """Point this process and its children to a new, migrated database and an empty cache, for the length of the block.

    The servers are those of the environment, or embedded ones for the length of the block.
    """
    with (
        stack.running() as servers,
        redis.empty(servers.environ["HARBOR_CACHE_URL"]) as cache,
        _pointing_to({**servers.environ, "HARBOR_CACHE_URL": cache, **_QUIET}),
        another(),
    ):
        yield


@contextmanager
def another() -> Iterator[None]:
    """Point this process to one more new, migrated database, for the length of the block; drop it then."""
    url = make_url(settings().direct_url())
    name = f"harbor_bench_{uuid4().hex[:8]}"
    given = {variable: os.environ[variable] for variable in _DATABASE_URLS if os.environ.get(variable)}
    _administer(url, f'CREATE DATABASE "{name}"')
    try:
        with _pointing_to({variable: _complete(make_url(told).set(database=name)) for variable, told in given.items()}):
            command.upgrade(Config(toml_file=_PROJECT, stdout=io.StringIO()), "head")
            yield
    finally:
        _administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


@contextmanager
def _pointing_to(environ: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    try:
        _use({**before, **environ})
        yield
    finally:
        _use(before)


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
    _administer(make_url(settings().direct_url()), "VACUUM (ANALYZE)")
