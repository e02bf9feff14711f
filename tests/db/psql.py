"""psql itself, as a role of one's own: what a service in any language, or a person, sees."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

from sqlalchemy.engine import make_url

from db.settings import settings
from stack import postgres_binary
from tests.conftest import str_url
from tests.db.sql import change
from tests.processes import run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator


@contextmanager
def role(*member_of: str) -> Iterator[str]:
    """Have a role that may log in for the length of the block; its name."""
    name = f"service_{uuid4().hex[:8]}"
    change(f"CREATE ROLE {name} LOGIN PASSWORD 'for-this-test'")
    try:
        for other in member_of:
            change(f"GRANT {other} TO {name}")
        yield name
    finally:
        change(f"DROP OWNED BY {name}")
        change(f"DROP ROLE {name}")


def url_of(name: str) -> str:
    """The URL of this process's database for a role of `role`."""
    url = make_url(settings().database_url.get_secret_value())
    return str_url(url.set(drivername="postgresql", username=name, password="for-this-test"))


def psql(name: str, *commands: str) -> subprocess.CompletedProcess[str]:
    """Run commands in one session of psql, as a role; the first that fails ends it."""
    told = [part for command in commands for part in ("--command", command)]
    plain = ["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"]
    return run([str(postgres_binary("psql")), *plain, *told, url_of(name)], {"LC_ALL": "C", "PGCONNECT_TIMEOUT": "10"})
