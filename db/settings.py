"""The only reader of the environment: what is missing or malformed stops the process at its start, by name.

Every variable has the prefix HARBOR_. A secret may stand in a file instead: HARBOR_DATABASE_URL_FILE names a file whose
content is HARBOR_DATABASE_URL. In dev (HARBOR_ENV unset or `dev`) a process without URLs finds those of a running
`harbor up` in `.harbor/stack.env`. No message here ever shows a value, since most of them carry a password.
"""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from db.errors import SettingsError

PREFIX = "HARBOR_"
STACK_ENV = Path(".harbor/stack.env")
"""Where `harbor up` leaves the three URLs for other processes of the same checkout, relative to its root."""

URLS = ("HARBOR_DATABASE_URL", "HARBOR_BROKER_URL", "HARBOR_CACHE_URL")
POOLS = ("default", "expiry", "bulk")
"""The worker pools, each of which consumes the queue of its name."""

DIRECT_URL = "HARBOR_DATABASE_DIRECT_URL"
_REDIS_PORT = 6379
_OURS = frozenset({"application_name", "connect_timeout", "options", "prepare_threshold"})

Milliseconds = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Everything that a process can be told, typed and checked once.

    Durations carry their unit. `database_concurrency` is how many threads of one process use the database at once; a
    prefork child always needs 1, whatever is said here. `database_pooler` is what stands between Harbor and PostgreSQL:
    `transaction` is PgBouncer with `pool_mode = transaction`, which lends a connection for one transaction only.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True)

    env: Literal["dev", "test", "prod"] = "dev"
    database_url: SecretStr
    broker_url: SecretStr
    cache_url: SecretStr
    database_direct_url: Annotated[SecretStr | None, Field(validate_default=False)] = None

    database_pooler: Literal["none", "transaction"] = "none"
    database_concurrency: Annotated[int, Field(ge=1, le=1_000)] = 8
    statement_timeout_ms: Milliseconds = 30_000
    lock_timeout_ms: Milliseconds = 5_000
    idle_in_transaction_timeout_ms: Milliseconds = 60_000
    pool_timeout_ms: Milliseconds = 5_000
    slow_query_ms: Milliseconds = 100
    repeated_statements: Annotated[int, Field(ge=1)] = 50

    # How long a job is a worker's that says nothing any more, and a published one may wait before it is sent again.
    job_lease_seconds: Annotated[float, Field(ge=1, le=3_600)] = 30
    job_republish_seconds: Annotated[float, Field(ge=1, le=3_600)] = 10
    failpoint: str = ""

    worker_pool: Literal["default", "expiry", "bulk"] = "default"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    flower_user: str = "harbor"
    flower_password: SecretStr | None = None
    flower_cookie_secret: SecretStr | None = None
    # Empty would be every interface.
    flower_address: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    flower_port: Annotated[int, Field(ge=0, le=65_535)] = 5555
    flower_read_only: bool = True

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _only_psycopg(cls, url: SecretStr) -> SecretStr:
        try:
            parts = make_url(url.get_secret_value())
            scheme = parts.drivername
        except (ArgumentError, ValueError):
            raise ValueError("is not a URL like postgresql+psycopg://user@host:5432/name") from None
        if scheme != "postgresql+psycopg":
            raise ValueError(f"has the scheme {scheme!r}; Harbor speaks postgresql+psycopg:// only")
        if ours := sorted(_OURS & parts.query.keys()):
            raise ValueError(f"must not say {', '.join(ours)}, which Harbor sets itself")
        return url

    @field_validator("database_direct_url")
    @classmethod
    def _same_database(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        other = info.data.get("database_url")
        if isinstance(other, SecretStr) and _database(other) != _database(url):
            # Left over from another environment it would lead migrations, and a test's, to that one's database.
            raise ValueError("names another database than HARBOR_DATABASE_URL")
        return url

    @field_validator("failpoint")
    @classmethod
    def _not_in_production(cls, place: str, info: ValidationInfo) -> str:
        if place and info.data.get("env") == "prod":
            raise ValueError("ends processes on purpose, which is for tests and not for prod")
        return place

    @field_validator("broker_url", "cache_url")
    @classmethod
    def _only_redis(cls, url: SecretStr, info: ValidationInfo) -> SecretStr:
        _redis_place(url)
        broker = info.data.get("broker_url")
        if isinstance(broker, SecretStr) and _redis_place(broker) == _redis_place(url):
            # Keys of a cache may be evicted and purged; messages in the same database would go with them.
            raise ValueError("names the same database as HARBOR_BROKER_URL; give the cache one of its own, such as /1")
        return url

    def direct_url(self) -> str:
        """Return the URL of connections that keep their session: for migrations, and for whatever holds a session lock.

        Raises:
            SettingsError: HARBOR_DATABASE_URL leads to a pooler and HARBOR_DATABASE_DIRECT_URL is not set.
        """
        if self.database_direct_url is not None:
            return self.database_direct_url.get_secret_value()
        if self.database_pooler != "none":
            raise SettingsError(
                variable=DIRECT_URL,
                problem=f"is not set, and HARBOR_DATABASE_POOLER is {self.database_pooler}: migrations need a"
                " connection to PostgreSQL itself",
            )
        return self.database_url.get_secret_value()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - replaced by the two below
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read what the code gave, then the environment, then `*_FILE`, then a running `harbor up`."""
        return init_settings, env_settings, _SecretFiles(settings_cls), _RunningStack(settings_cls)


class _SecretFiles(PydanticBaseSettingsSource):
    """HARBOR_X_FILE names the file that holds HARBOR_X, as Docker and Kubernetes mount secrets."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        return (Path(path).read_text("utf-8").strip() if path else None), field_name, False

    def __call__(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, field in self.settings_cls.model_fields.items():
            try:
                value, _, _ = self.get_field_value(field, name)
            except (OSError, UnicodeDecodeError) as error:
                reason = getattr(error, "strerror", None) or "it is not text"
                raise SettingsError(
                    variable=f"{PREFIX}{name.upper()}_FILE", problem=f"cannot be read: {reason}"
                ) from None
            if value is not None:
                found[name] = value
        return found


class _RunningStack(DotEnvSettingsSource):
    """The URLs of a running `harbor up`, for a process in dev that was told none."""

    def __init__(self, settings_cls: type[BaseSettings]) -> None:
        told = [name for name in (*URLS, DIRECT_URL) if os.environ.get(name) or os.environ.get(f"{name}_FILE")]
        missing = [name for name in URLS if name not in told]
        if told and missing:
            problem = f"is not set, but {' and '.join(told)} is: set all three or none"
            raise SettingsError(variable=" and ".join(missing), problem=problem)
        dev = os.environ.get("HARBOR_ENV", "dev") == "dev"
        super().__init__(settings_cls, env_file=STACK_ENV if dev and not told else None, env_prefix=PREFIX)


def _database(url: SecretStr) -> str | None:
    return make_url(url.get_secret_value()).database


def _redis_place(url: SecretStr) -> tuple[str, int, int]:
    """Return (host, port, database) of a Redis URL. Raises ValueError when it is none."""
    try:
        parts = make_url(url.get_secret_value())
    except (ArgumentError, ValueError):
        raise ValueError("is not a URL like redis://host:6379/0") from None
    if parts.drivername not in {"redis", "rediss"}:
        raise ValueError(f"has the scheme {parts.drivername!r}; Harbor speaks redis:// and rediss:// only")
    database = parts.database or "0"
    # The client takes database 0 for a path that is no number, and lets a `db` in the query overrule the path.
    if not (database.isascii() and database.isdecimal()) or "db" in parts.query:
        raise ValueError("must say its database as a number in its path, like redis://host:6379/1")
    host = (parts.host or "localhost").lower()
    return "localhost" if host in {"127.0.0.1", "::1"} else host, parts.port or _REDIS_PORT, int(database)


@lru_cache(maxsize=1)
def settings() -> Settings:
    """Return the settings of this process, read once.

    Raises:
        SettingsError: a variable is missing or malformed; the message names it and never shows its value.
    """
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        variable = f"{PREFIX}{str(first['loc'][0]).upper()}"
        if first["type"] == "missing":
            problem = (
                "is not set; start everything on this machine with `harbor up`, or point it to your server"
                " (a running `harbor up` is found from its own directory only)"
            )
        else:
            said = str(first["msg"])
            ours = said.removeprefix("Value error, ")
            problem = ours if ours != said else f"is malformed: {said[:1].lower()}{said[1:]}"
        raise SettingsError(variable=variable, problem=problem) from None
