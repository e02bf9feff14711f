"""What the jobs do: each adds 1 to one row of its own, so that a lost or a repeated job can be seen.

Every side runs `ADD_ONE` in a transaction of its own per job, over psycopg.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg
from sqlalchemy.engine import make_url

from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ADD_ONE: Final = "UPDATE effects SET n = n + 1 WHERE id = %(id)s"

_LOOK_SECONDS: Final = 0.02
# The rows before `after` are known to be done: a look reads those that were done since the last one, and one more.
_FIRST_LEFT: Final = "SELECT id FROM effects WHERE id > %(after)s AND n = 0 ORDER BY id LIMIT 1"
_STATEMENTS: Final = (
    # Half of each page is left free, so that an update of `n`, which no index has, stays on its page.
    "CREATE TABLE IF NOT EXISTS effects (id bigint PRIMARY KEY, n integer NOT NULL DEFAULT 0) WITH (fillfactor = 50)",
    "TRUNCATE effects",
    "INSERT INTO effects (id) SELECT generate_series(1, %(jobs)s::bigint)",
)


@dataclass(frozen=True, slots=True)
class Counted:
    """How many jobs had no effect, exactly one, and more than one."""

    lost: int
    once: int
    repeated: int


def database_url() -> str:
    """Return the bench's database as libpq reads it, with its password."""
    return make_url(settings().direct_url()).set(drivername="postgresql").render_as_string(hide_password=False)


class Effects:
    """The rows of a round; all of its work is on one connection, which no side uses."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        """Work on `connection`, which commits each statement."""
        self._connection = connection

    def reset(self, jobs: int) -> None:
        """Have one row for each of `jobs` jobs, with ids from 1, on which nothing has been done."""
        for statement in _STATEMENTS:
            self._connection.execute(statement.encode(), {"jobs": jobs} if "%(jobs)s" in statement else None)
        # As autovacuum has done by the time a real table has this many rows; the queues of the last round, too.
        self._connection.execute("VACUUM (ANALYZE)")

    def wait(self, check: Callable[[], None]) -> float:
        """Return when every row had its effect, in seconds of `time.perf_counter`; `check` may refuse to wait on."""
        after = 0
        while True:
            left = self._connection.execute(_FIRST_LEFT, {"after": after}).fetchone()
            if left is None:
                return time.perf_counter()
            after = left[0] - 1
            check()
            time.sleep(_LOOK_SECONDS)

    def counted(self) -> Counted:
        """Return how many jobs were lost, done once and repeated."""
        query = "SELECT count(*) FILTER (WHERE n = 0), count(*) FILTER (WHERE n = 1), count(*) FILTER (WHERE n > 1)"
        row = self._connection.execute(f"{query} FROM effects".encode()).fetchone()
        assert row is not None
        return Counted(*row)


@contextmanager
def connected() -> Iterator[Effects]:
    """Yield the effects, on a connection that is closed at the end."""
    with psycopg.connect(database_url(), autocommit=True) as connection:
        yield Effects(connection)
