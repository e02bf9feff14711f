"""HARBOR_STACK_SERVERS=debian runs Debian's PostgreSQL and Redis, and says what is missing where they are not."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

import stack
from stack import binaries
from stack.binaries import SERVERS_VARIABLE, URL_VARIABLES
from tests.stack.processes import database

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SERVERS_VARIABLE, *URL_VARIABLES):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVERS_VARIABLE, "debian")


@pytest.fixture
def installed(debian: None) -> binaries.Binaries:
    """Debian's programs."""
    try:
        return binaries.find()
    except stack.MissingBinaryError as error:
        pytest.skip(str(error))


@pytest.fixture
def versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for major versions of PostgreSQL as Debian installs them, still without any."""
    monkeypatch.setattr(binaries, "DEBIAN_POSTGRES", tmp_path)
    return tmp_path


def install(versions: Path, *names: str) -> None:
    for name in names:
        (versions / name / "bin").mkdir(parents=True)
        (versions / name / "bin" / "postgres").touch()


def executables() -> tuple[str, str]:
    """What a stack's PostgreSQL says of its version, and its Redis of its program."""
    with stack.running() as running:
        with psycopg.connect(database(running.environ)) as connection:
            row = connection.execute("SHOW server_version").fetchone()
        with redis.Redis.from_url(running.environ["HARBOR_BROKER_URL"]) as client:
            program = str(client.info("server")["executable"])
    assert row is not None
    return str(row[0]), program


def test_the_servers_that_run_are_debians(installed: binaries.Binaries) -> None:
    version = subprocess.run([installed.postgres, "--version"], check=True, capture_output=True, text=True).stdout

    server_version, program = executables()

    assert installed.postgres.is_relative_to(binaries.DEBIAN_POSTGRES)
    assert server_version in version
    assert program == str(binaries.DEBIAN_REDIS)


def test_without_the_variable_the_servers_are_not_debians() -> None:
    server_version, program = executables()

    assert server_version.startswith("18.")
    assert program != str(binaries.DEBIAN_REDIS)


def test_the_other_programs_are_debians_too(installed: binaries.Binaries) -> None:
    assert stack.postgres_binary("psql").parent == installed.postgres.parent
    with pytest.raises(stack.MissingBinaryError, match="pg_nothing is not here"):
        stack.postgres_binary("pg_nothing")


def test_text_sorts_by_code_point_and_knows_the_case_of_every_letter(installed: binaries.Binaries) -> None:
    with stack.running() as running, psycopg.connect(database(running.environ)) as connection:
        row = connection.execute("SELECT 'Z' < 'a', 'z' < 'ä', upper('ä')").fetchone()

    assert row == (True, True, "Ä")


@pytest.mark.parametrize(
    ("there", "newest"), [(["15"], "15"), (["9.6", "14", "15", "16"], "16"), (["17", "100"], "100")]
)
def test_the_newest_postgresql_is_taken(versions: Path, debian: None, there: list[str], newest: str) -> None:
    install(versions, *there)

    assert stack.postgres_binary("postgres") == versions / newest / "bin" / "postgres"


@pytest.mark.parametrize("there", [[], ["14"], ["9.6"]])
def test_no_postgresql_or_only_an_old_one_is_named(versions: Path, debian: None, there: list[str]) -> None:
    install(versions, *there)

    with pytest.raises(stack.MissingBinaryError, match=r"^PostgreSQL 15 or newer is not here.*apt-get install"):
        binaries.find()


def test_a_missing_redis_is_named(
    versions: Path, debian: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(versions, "15")
    (versions / "15" / "bin" / "initdb").touch()
    monkeypatch.setattr(binaries, "DEBIAN_REDIS", tmp_path / "redis-server")

    with pytest.raises(stack.MissingBinaryError, match=r"^redis-server is not here.*apt-get install"):
        binaries.find()


def test_servers_that_the_stack_does_not_know_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVERS_VARIABLE, "fedora")

    with pytest.raises(stack.UnknownServersError, match="HARBOR_STACK_SERVERS is 'fedora': say `debian`"):
        binaries.find()
