"""A transaction that outlives its server: done again when it was lost, and never done twice.

A COMMIT whose answer got lost may have happened. PostgreSQL knows: the transaction's number is asked for as its last
statement, and after the loss what became of that number.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from db.session import snapshot, transaction

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

T = TypeVar("T")

PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.1
# Shutting down, crashed, starting: of class 57, the others are somebody's wish to cancel a statement.
_AWAY: Final = "57P"

_NUMBER: Final = text("SELECT CAST(pg_current_xact_id() AS text)")
_STATUS: Final = text("SELECT pg_xact_status(CAST(:number AS xid8))")


def transact(deed: Callable[[Session], T], *, over: Callable[[], bool], count: Callable[[str], None]) -> T:
    """Return what `deed` answers in a transaction that is committed once, however often the server is lost meanwhile.

    Args:
        deed: what is done; asked again from the beginning when the transaction is known not to be committed.
        over: whether it is not worth trying any more.
        count: told "retries" when it has to be done again, however often, and "lost_answers" when a COMMIT was looked
            up and had happened.

    Raises:
        DBAPIError: the server stayed away, or what went wrong was not the loss of it.
    """
    patience, again = _Patience(over), False
    while True:
        number: str | None = None
        try:
            with transaction() as session:
                answer = deed(session)
                number = session.execute(_NUMBER).scalar_one()
        except DBAPIError as error:
            if not is_lost(error):
                raise
            patience.wait(error)
            if number is not None and _was_committed(number, patience):
                count("lost_answers")
                return answer
            if not again:
                count("retries")
            again = True
        else:
            return answer


def is_lost(error: DBAPIError) -> bool:
    """Return whether an error says that the server went away, is not there, or is not ready yet."""
    state = getattr(error.orig, "sqlstate", None)
    # What was not even connected has no state.
    return error.connection_invalidated or (
        isinstance(error, OperationalError) and (state is None or state.startswith(_AWAY))
    )


def _was_committed(number: str, patience: _Patience) -> bool:
    while True:
        try:
            with snapshot() as session:
                status = session.execute(_STATUS, {"number": number}).scalar_one()
        except DBAPIError as error:
            if not is_lost(error):
                raise
            patience.wait(error)
        else:
            if status != "in progress":
                return bool(status == "committed")
            time.sleep(_PAUSE_SECONDS)


class _Patience:
    """How long a lost server is waited for."""

    def __init__(self, over: Callable[[], bool]) -> None:
        self._over = over
        self._deadline: float | None = None

    def wait(self, error: DBAPIError) -> None:
        """Wait a moment; raises the error instead when there is no more to wait for."""
        now = time.monotonic()
        self._deadline = self._deadline or now + PATIENCE_SECONDS
        if self._over() or now > self._deadline:
            raise error
        time.sleep(_PAUSE_SECONDS)
