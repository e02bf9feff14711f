"""What a process is told is checked at its start: each mistake is named by its variable and never shows a value."""

from __future__ import annotations

import os
from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from db.errors import SettingsError
from db.settings import STACK_ENV, URLS, Settings, settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATABASE, BROKER, CACHE = URLS
DIRECT = "HARBOR_DATABASE_DIRECT_URL"
GOOD = {
    DATABASE: "postgresql+psycopg://harbor:hunter2@db.internal:5432/shop",
    BROKER: "redis://:hunter2@redis.internal:6379/0",
    CACHE: "redis://:hunter2@redis.internal:6379/1",
}


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process that was told nothing, in a directory that has nothing."""
    for name in [name for name in os.environ if name.upper().startswith("HARBOR_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    settings.cache_clear()
    yield
    settings.cache_clear()


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was told its three servers."""
    for name, url in GOOD.items():
        monkeypatch.setenv(name, url)


def refusal() -> SettingsError:
    with pytest.raises(SettingsError) as refused:
        settings()
    assert "hunter2" not in str(refused.value)
    assert "hunter2" not in repr(refused.value.ids)
    assert refused.value.__cause__ is None
    return refused.value


def urls_of(found: Settings) -> list[str]:
    return [
        found.database_url.get_secret_value(),
        found.broker_url.get_secret_value(),
        found.cache_url.get_secret_value(),
    ]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ---- what is told ----------------------------------------------------------------------------------------------------


def test_a_process_finds_what_it_was_told(told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_ENV", "prod")
    monkeypatch.setenv("HARBOR_STATEMENT_TIMEOUT_MS", "1500")

    found = settings()

    assert urls_of(found) == list(GOOD.values())
    assert (found.env, found.statement_timeout_ms) == ("prod", 1_500)


def test_what_was_not_told_has_a_safe_default(told: None) -> None:
    found = settings()

    assert (found.env, found.flower_address, found.flower_read_only) == ("dev", "127.0.0.1", True)
    assert (found.statement_timeout_ms, found.lock_timeout_ms) == (30_000, 5_000)
    assert found.idle_in_transaction_timeout_ms == 60_000
    assert (found.database_pooler, found.slow_query_ms, found.repeated_statements) == ("none", 100, 50)


def test_settings_are_read_once(told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    first = settings()
    monkeypatch.setenv("HARBOR_ENV", "prod")

    assert settings() is first


def test_a_mistake_that_was_corrected_is_not_remembered(told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_ENV", "staging")
    refusal()
    monkeypatch.setenv("HARBOR_ENV", "test")

    assert settings().env == "test"


def test_settings_never_show_a_secret(told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_FLOWER_PASSWORD", "hunter2")
    monkeypatch.setenv("HARBOR_FLOWER_COOKIE_SECRET", "hunter2")

    shown = f"{settings()!r} {settings()}"

    assert "hunter2" not in shown


# ---- what is missing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["dev", "test", "prod"])
def test_without_any_url_the_first_is_named_and_what_to_do(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_ENV", env)

    error = refusal()

    assert error.ids["variable"] == DATABASE
    assert "`harbor up`" in str(error)


@pytest.mark.parametrize("missing", [*combinations(URLS, 1), *combinations(URLS, 2)])
def test_with_some_urls_the_others_are_named(
    told: None, monkeypatch: pytest.MonkeyPatch, missing: tuple[str, ...]
) -> None:
    for name in missing:
        monkeypatch.delenv(name)

    error = refusal()

    assert error.ids["variable"] == " and ".join(missing)
    assert "set all three or none" in str(error)


@pytest.mark.parametrize("name", URLS)
def test_an_empty_url_is_a_missing_one(told: None, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "")

    assert refusal().ids["variable"] == name


# ---- what is malformed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        (DATABASE, "hunter2"),
        (DATABASE, "harbor:hunter2@db.internal/shop"),
        (DATABASE, "postgresql+psycopg://harbor:hunter2/shop"),
        (DATABASE, "postgresql+psycopg://harbor@db.internal:hunter2/shop"),
        (DATABASE, "sqlite:///hunter2.db"),
        (DIRECT, "hunter2"),
        (DIRECT, ""),
        (DIRECT, "postgresql://harbor:hunter2@db.internal:5432/shop"),
        (DIRECT, "postgresql+psycopg://harbor:hunter2@db.internal:5432/shop?options=hunter2"),
        (BROKER, "hunter2"),
        (BROKER, "redis://:hunter2/0"),
        (BROKER, "redis://redis.internal:hunter2/0"),
        (CACHE, "hunter2"),
        (CACHE, "redis://redis.internal:hunter2/1"),
        (CACHE, "redis://redis.internal:6379/hunter2"),
        ("HARBOR_ENV", "hunter2"),
        ("HARBOR_ENV", ""),
        ("HARBOR_DATABASE_CONCURRENCY", "hunter2"),
        ("HARBOR_DATABASE_CONCURRENCY", "0"),
        ("HARBOR_DATABASE_CONCURRENCY", "1001"),
        ("HARBOR_DATABASE_CONCURRENCY", "1.5"),
        ("HARBOR_STATEMENT_TIMEOUT_MS", "hunter2"),
        ("HARBOR_STATEMENT_TIMEOUT_MS", "0"),
        ("HARBOR_LOCK_TIMEOUT_MS", "-1"),
        ("HARBOR_IDLE_IN_TRANSACTION_TIMEOUT_MS", "5 s"),
        ("HARBOR_POOL_TIMEOUT_MS", ""),
        ("HARBOR_DATABASE_POOLER", "hunter2"),
        ("HARBOR_SLOW_QUERY_MS", "0"),
        ("HARBOR_REPEATED_STATEMENTS", "0"),
        ("HARBOR_WORKER_POOL", "hunter2"),
        ("HARBOR_LOG_LEVEL", "hunter2"),
        ("HARBOR_FLOWER_PORT", "65536"),
        ("HARBOR_FLOWER_READ_ONLY", "hunter2"),
    ],
)
def test_a_malformed_variable_is_named(told: None, monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)

    error = refusal()

    assert error.ids["variable"] == variable
    assert str(error).startswith(f"{variable} ")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+asyncpg", "mysql"])
def test_another_database_scheme_is_refused_by_name(told: None, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv(DATABASE, f"{scheme}://harbor:hunter2@db.internal/shop")

    error = refusal()

    assert error.ids["variable"] == DATABASE
    assert f"the scheme {scheme!r}" in str(error)
    assert "postgresql+psycopg://" in str(error)


@pytest.mark.parametrize("variable", [BROKER, CACHE])
@pytest.mark.parametrize("scheme", ["http", "amqp", "unix", "valkey"])
def test_another_redis_scheme_is_refused_by_name(
    told: None, monkeypatch: pytest.MonkeyPatch, variable: str, scheme: str
) -> None:
    monkeypatch.setenv(variable, f"{scheme}://:hunter2@redis.internal/5")

    error = refusal()

    assert error.ids["variable"] == variable
    assert f"the scheme {scheme!r}" in str(error)


@pytest.mark.parametrize(
    ("broker", "cache"),
    [
        ("redis://h:6379/0", "redis://h:6379/0"),
        ("redis://h/0", "redis://h:6379/0"),
        ("redis://h", "redis://h:6379/0"),
        ("redis://h/", "redis://h"),
        ("redis://h/3", "rediss://other:password@h:6379/3"),
        ("redis:///2", "redis://localhost/2"),
    ],
)
def test_messages_and_cache_in_one_database_are_refused(
    told: None, monkeypatch: pytest.MonkeyPatch, broker: str, cache: str
) -> None:
    monkeypatch.setenv(BROKER, broker)
    monkeypatch.setenv(CACHE, cache)

    error = refusal()

    assert error.ids["variable"] == CACHE
    assert "names the same database as HARBOR_BROKER_URL" in str(error)


@pytest.mark.parametrize(
    ("broker", "cache"),
    [
        ("redis://h:6379/0", "redis://h:6379/1"),
        ("redis://h:6379/0", "redis://h:6380/0"),
        ("redis://one/0", "rediss://two/0"),
    ],
)
def test_messages_and_cache_in_databases_of_their_own_are_accepted(
    told: None, monkeypatch: pytest.MonkeyPatch, broker: str, cache: str
) -> None:
    monkeypatch.setenv(BROKER, broker)
    monkeypatch.setenv(CACHE, cache)

    assert urls_of(settings())[1:] == [broker, cache]


# ---- a direct connection ---------------------------------------------------------------------------------------------


def test_a_direct_connection_is_the_database_url_when_nothing_stands_between(told: None) -> None:
    assert settings().direct_url() == GOOD[DATABASE]


@pytest.mark.parametrize("pooler", ["none", "transaction"])
def test_a_direct_url_wins_over_the_database_url(told: None, monkeypatch: pytest.MonkeyPatch, pooler: str) -> None:
    direct = GOOD[DATABASE].replace("5432", "6432")
    monkeypatch.setenv("HARBOR_DATABASE_POOLER", pooler)
    monkeypatch.setenv(DIRECT, direct)

    assert settings().direct_url() == direct
    assert "hunter2" not in repr(settings())


def test_behind_a_pooler_a_direct_connection_must_be_named(told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_DATABASE_POOLER", "transaction")

    with pytest.raises(SettingsError, match=f"^{DIRECT} is not set"):
        settings().direct_url()


def test_a_direct_url_to_another_database_is_refused(told: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DIRECT, f"{GOOD[DATABASE]}_test")

    error = refusal()

    assert error.ids["variable"] == DIRECT
    assert "names another database than HARBOR_DATABASE_URL" in str(error)


def test_a_direct_url_does_not_go_with_a_running_stack(
    running_stack: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DIRECT, GOOD[DATABASE])

    assert refusal().ids["variable"] == " and ".join(URLS)


# ---- secrets in files ------------------------------------------------------------------------------------------------


def test_a_secret_may_stand_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, url in GOOD.items():
        monkeypatch.setenv(f"{name}_FILE", str(write(tmp_path / "secrets" / name, f"  {url}\n")))
    monkeypatch.setenv("HARBOR_FLOWER_PASSWORD_FILE", str(write(tmp_path / "flower", "correct horse\n")))
    monkeypatch.setenv(f"{DIRECT}_FILE", str(write(tmp_path / "direct", GOOD[DATABASE])))

    found = settings()

    assert urls_of(found) == list(GOOD.values())
    assert found.flower_password is not None
    assert found.flower_password.get_secret_value() == "correct horse"
    assert found.direct_url() == GOOD[DATABASE]


def test_some_urls_may_stand_in_files_and_some_in_variables(
    told: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DATABASE)
    monkeypatch.setenv(f"{DATABASE}_FILE", str(write(tmp_path / "url", GOOD[DATABASE])))

    assert urls_of(settings()) == list(GOOD.values())


def test_a_variable_wins_over_its_file(told: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{DATABASE}_FILE", str(write(tmp_path / "url", "postgresql+psycopg://other@h/other")))

    assert urls_of(settings())[0] == GOOD[DATABASE]


def test_a_malformed_url_in_a_file_is_named_by_its_variable(
    told: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(DATABASE)
    monkeypatch.setenv(f"{DATABASE}_FILE", str(write(tmp_path / "url", "mysql://harbor:hunter2@h/shop")))

    assert refusal().ids["variable"] == DATABASE


@pytest.mark.parametrize("content", [None, b"\xff\xfe hunter2"], ids=["missing", "no text"])
def test_a_file_that_cannot_be_read_is_named_by_its_variable(
    told: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "password"
    if content is not None:
        write(path, content)
    monkeypatch.setenv("HARBOR_FLOWER_PASSWORD_FILE", str(path))

    error = refusal()

    assert error.ids["variable"] == "HARBOR_FLOWER_PASSWORD_FILE"
    assert "cannot be read" in str(error)


def test_a_directory_is_no_secret(told: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_FLOWER_PASSWORD_FILE", str(tmp_path))

    assert refusal().ids["variable"] == "HARBOR_FLOWER_PASSWORD_FILE"


# ---- a running `harbor up` -------------------------------------------------------------------------------------------


@pytest.fixture
def running_stack(tmp_path: Path) -> list[str]:
    """The URLs that a running `harbor up` has left in this directory."""
    urls = {name: url.replace("internal", "stack") for name, url in GOOD.items()}
    write(tmp_path / STACK_ENV, "".join(f"{name}={url}\n" for name, url in urls.items()))
    return list(urls.values())


@pytest.mark.parametrize("env", [None, "dev"])
def test_in_dev_a_process_without_urls_finds_the_running_stack(
    running_stack: list[str], monkeypatch: pytest.MonkeyPatch, env: str | None
) -> None:
    if env is not None:
        monkeypatch.setenv("HARBOR_ENV", env)

    assert urls_of(settings()) == running_stack


@pytest.mark.parametrize("env", ["test", "prod"])
def test_elsewhere_the_running_stack_is_not_looked_for(
    running_stack: list[str], monkeypatch: pytest.MonkeyPatch, env: str
) -> None:
    monkeypatch.setenv("HARBOR_ENV", env)

    assert refusal().ids["variable"] == DATABASE


def test_a_process_that_was_told_its_servers_ignores_the_running_stack(told: None, running_stack: list[str]) -> None:
    assert urls_of(settings()) == list(GOOD.values())


@pytest.mark.parametrize("name", URLS)
def test_a_process_that_was_told_one_server_does_not_fill_in_from_the_running_stack(
    running_stack: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, GOOD[name])

    assert "set all three or none" in str(refusal())


def test_a_running_stack_may_leave_more_than_harbor_reads(
    running_stack: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / STACK_ENV
    write(path, path.read_text() + "HARBOR_PID=7\nOTHER=1\n")

    assert urls_of(settings()) == running_stack
