"""Every test that touches a server touches a real one: one stack per process, one database per test, cloned from one.

`make test` runs files of tests side by side in several processes (pytest-xdist), each with a stack of its own, so that
no test meets another's databases, messages or connections.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

import stack

# pytest looks at every name in a test's module. At a task that makes Celery's default app final, and a task that is
# declared after that asks for settings which a test has not made yet.
import tasks.inventory
import tasks.jobs
import tasks.reservations  # noqa: F401
from db import engine
from db.session import transaction
from db.settings import settings
from stack.binaries import URL_VARIABLES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

_MOST_PROCESSES = 8  # More would wait for the longest file; each has a PostgreSQL to start.
_QUICK = {"db", "tasks", "unit"}
"""Folders whose files take seconds each; most others start workers, servers or whole shops."""


@pytest.hookimpl(optionalhook=True)  # There is none to be asked when pytest-xdist is switched off.
def pytest_xdist_auto_num_workers() -> int:
    """Say how many processes `-n auto` is: one more than cores, since a test often waits for what it has started.

    Servers of the environment would be shared, and nothing keeps two processes there from taking the same empty Redis
    database: then the tests run in this process, one after another.
    """
    if any(os.environ.get(name) for name in URL_VARIABLES):
        return 0
    return min((os.cpu_count() or 1) + 1, _MOST_PROCESSES)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Side by side, begin with the long files, so that no process has one left when the others are done."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name in _QUICK)


@pytest.fixture(scope="session")
def servers() -> Iterator[dict[str, str]]:
    """The three URLs of real servers: those of the environment when they are set, embedded ones otherwise."""
    with stack.running() as running:
        # A machine that is busy makes statements slow, and tests read what a process says on stderr.
        yield {**running.environ, "HARBOR_ENV": "test", "HARBOR_SLOW_QUERY_MS": "3600000"}


def _administer(url: URL, statement: str) -> None:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        connection.execute(statement)


def _use(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    settings.cache_clear()
    engine.dispose()


def alembic_config() -> Config:
    """Alembic as `alembic` at the root finds it, but silent."""
    return Config(toml_file="pyproject.toml", stdout=io.StringIO())


@pytest.fixture(scope="session")
def template(servers: dict[str, str]) -> Iterator[str]:
    """The name of a database that all migrations have run in."""
    url = make_url(servers["HARBOR_DATABASE_URL"])
    name = f"harbor_template_{uuid4().hex[:8]}"
    _administer(url, f'CREATE DATABASE "{name}"')
    with pytest.MonkeyPatch.context() as monkeypatch:
        _use({**servers, "HARBOR_DATABASE_URL": str_url(url.set(database=name))}, monkeypatch)
        command.upgrade(alembic_config(), "head")
        _keep_job_types()
        engine.dispose()
    settings.cache_clear()
    yield name
    _administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _keep_job_types() -> None:
    """As `harbor db upgrade` does after the migrations."""
    from worker.celery import app
    from worker.registry import keep_types

    with transaction() as session:
        keep_types(app, session)


def str_url(url: URL) -> str:
    """The URL with its password, as the environment holds it."""
    return url.render_as_string(hide_password=False)


@pytest.fixture
def environ(servers: dict[str, str], template: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """A migrated database of this test's own; this process and the children it starts with this environment use it."""
    url = make_url(servers["HARBOR_DATABASE_URL"])
    name = f"harbor_test_{uuid4().hex[:8]}"
    _administer(url, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    mine = {**servers, "HARBOR_DATABASE_URL": str_url(url.set(database=name))}
    _use(mine, monkeypatch)
    yield {**os.environ, **mine}
    engine.dispose()
    settings.cache_clear()
    _administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say so when nothing was skipped; what was, pytest lists itself (-ra)."""
    if not terminalreporter.stats.get("skipped"):
        terminalreporter.write_line("No test was skipped.")
