"""The two servers as configuration: their command lines, their settings, and how to tell that they serve.

Promise: durable (PostgreSQL keeps its default fsync, full_page_writes and synchronous_commit; Valkey appends to a log
that is synced every second), on 127.0.0.1 only, behind a password that never stands on a command line, and with no
bind value in a log.
"""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import psycopg
import redis

from stack.binaries import Binaries

HOST = "127.0.0.1"
USER = "harbor"
DATABASE = "harbor"
CONNECT_TIMEOUT_SECONDS = 2

POSTGRES_SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    # Two stacks of workers on one laptop: 200 leaves room for pools, the bench and psql.
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_lock_waits": "on",
    # Bind values are customers' data.
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}

# The built-in provider sorts the same on every machine; the C library's locales do not. PostgreSQL has it from 17 on;
# before, the C library's own C.UTF-8 is the closest: it, too, sorts by code point and knows every letter's case.
BUILTIN_LOCALE = ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
LIBRARY_LOCALE = ("--locale=C.UTF-8",)

# One server is both broker and cache, in two databases: only keys with a time to live are evicted, and messages have
# none.
VALKEY_SETTINGS = """\
bind {host}
protected-mode yes
port {port}
daemonize no
dir "{data}"
requirepass {password}
appendonly yes
appendfsync everysec
save ""
maxmemory 256mb
maxmemory-policy volatile-lfu
"""


class Server(Protocol):
    """What the keeper needs to know of a server."""

    stop_signal: ClassVar[signal.Signals]
    abort_signal: ClassVar[signal.Signals]
    NOT_YET: ClassVar[tuple[type[Exception], ...]]

    @property
    def name(self) -> str:
        """What its log and its end are told under."""

    @property
    def data(self) -> Path:
        """The server's data directory."""

    def command(self, port: int) -> list[str]:
        """The command line that serves on `port`; writes what that command reads."""

    def greet(self, port: int) -> None:
        """Do a real exchange with the server; raises one of NOT_YET while it does not serve."""


@dataclass(frozen=True)
class PostgreSQL:
    """PostgreSQL on a data directory."""

    name: ClassVar[str] = "postgres"
    # Fast shutdown: sessions are ended, and what they committed is checkpointed.
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT
    # Immediate shutdown: nothing is checkpointed, and the next start recovers as after a crash.
    abort_signal: ClassVar[signal.Signals] = signal.SIGQUIT
    NOT_YET: ClassVar[tuple[type[Exception], ...]] = (psycopg.OperationalError,)

    binaries: Binaries
    data: Path
    password: str

    def create_command(self, data: Path, password_file: Path) -> list[str]:
        """The command line that makes a new data directory."""
        return [
            str(self.binaries.initdb),
            f"--pgdata={data}",
            f"--username={USER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            *(BUILTIN_LOCALE if self.binaries.builtin_locale else LIBRARY_LOCALE),
        ]

    def command(self, port: int) -> list[str]:
        """The command line that serves on `port`."""
        settings = {"port": str(port), **POSTGRES_SETTINGS}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.binaries.postgres), "-D", str(self.data), *options]

    def greet(self, port: int) -> None:
        """Connect, and create the database when it is not there yet."""
        with psycopg.connect(
            host=HOST,
            port=port,
            user=USER,
            password=self.password,
            dbname="postgres",
            connect_timeout=CONNECT_TIMEOUT_SECONDS,
            autocommit=True,
        ) as connection:
            exists = connection.execute("SELECT FROM pg_database WHERE datname = %s", [DATABASE]).rowcount
            if not exists:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def url(self, port: int) -> str:
        """The SQLAlchemy URL of Harbor's database."""
        return f"postgresql+psycopg://{USER}:{self.password}@{HOST}:{port}/{DATABASE}"


@dataclass(frozen=True)
class Valkey:
    """Valkey, or a Redis in its place, on a data directory."""

    # It syncs its log, then ends.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    abort_signal: ClassVar[signal.Signals] = signal.SIGKILL
    NOT_YET: ClassVar[tuple[type[Exception], ...]] = (redis.RedisError,)

    binaries: Binaries
    data: Path
    settings_file: Path
    password: str

    @property
    def name(self) -> str:
        """`valkey` or `redis`, whichever it is."""
        return self.binaries.redis.name.removesuffix("-server")

    def command(self, port: int) -> list[str]:
        """The command line that serves on `port`; its settings, password included, go into the settings file."""
        text = VALKEY_SETTINGS.format(host=HOST, port=port, data=self.data, password=self.password)
        self.settings_file.write_text(text)
        return [str(self.binaries.redis), str(self.settings_file)]

    def greet(self, port: int) -> None:
        """Ping; fails while a kept log is still being loaded."""
        timeout = CONNECT_TIMEOUT_SECONDS
        with redis.Redis(
            host=HOST, port=port, password=self.password, socket_timeout=timeout, socket_connect_timeout=timeout
        ) as client:
            client.ping()

    def url(self, port: int, database: int) -> str:
        """The URL of one of its databases."""
        return f"redis://:{self.password}@{HOST}:{port}/{database}"
