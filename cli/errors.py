"""What an operator is told when something cannot be done: one line that says which thing, and never a password."""

import sys

from cli.hints import typed
from cli.output import printable
from cli.up import urls_are_told
from db.errors import HarborError

_GRANTS = "docs/operations.md has the grants, and migrations run as the owner, whom HARBOR_DATABASE_DIRECT_URL names"
_UNDEFINED = ("42P01", "42703")  # PostgreSQL's codes for a table and a column that do not exist.


def explain(error: Exception) -> str | None:
    """Return what to tell the operator, or None when the error is a defect, whose traceback is needed."""
    message = _message(error)
    return None if message is None else typed(message)


def _message(error: Exception) -> str | None:
    if isinstance(error, HarborError):
        return printable(str(error))
    # A module that was never imported raised nothing. Importing it here would be slow; the stack may not be installed.
    if (alembic := sys.modules.get("alembic.util")) and isinstance(error, alembic.CommandError):
        return printable(str(error))
    if (stack := sys.modules.get("stack")) and isinstance(error, stack.StackError):
        # Of several lines, when a server's log says why.
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return printable(f"{error.filename}: {error.strerror}")
    if (sqlalchemy := sys.modules.get("sqlalchemy.exc")) and isinstance(error, sqlalchemy.DBAPIError):
        return _database(error.orig)
    return None


def _database(error: BaseException | None) -> str | None:  # noqa: PLR0911 - one line per thing to say
    """Explain what the driver raised. Its text names host, port and user, and no password."""
    import psycopg

    if not isinstance(error, psycopg.Error):
        return None
    reason = printable(str(error).strip().split("\n", 1)[0])
    if error.sqlstate in _UNDEFINED:
        return f"the database lacks what this Harbor needs ({reason}): run `harbor db upgrade`"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return f"the database role may not do this ({reason}): {_GRANTS}"
    if not isinstance(error, psycopg.OperationalError):
        return None
    # A server that has been reached gives a code, or says FATAL when it lets nobody in.
    if error.sqlstate is not None or "FATAL:" in reason:
        return f"the database refused: {reason}"
    if urls_are_told():
        return f"HARBOR_DATABASE_URL leads to no database: {reason}"
    return f".harbor/stack.env is left over from a `harbor up` that no longer runs; start it again ({reason})"
