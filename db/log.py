"""Warnings of the database layer: events with fields, which go to Python's own log and never to stdout.

stdout is for answers that other programs read, and structlog writes there unless it is told otherwise. Python's own log
leads to stderr in a process that has not said anything, and a worker's log takes the fields from it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

_STATEMENT_CHARACTERS = 500  # Enough to know it by; a list of a thousand placeholders says no more than its beginning.


@dataclass(frozen=True, slots=True)
class Event:
    """What a record of the log is about; a log without fields writes it on one line."""

    name: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{field}={value!r}" for field, value in self.fields.items())])


def warn(module: str, event: str, **fields: Any) -> None:
    """Log an event of a module."""
    logging.getLogger(module).warning(Event(event, fields))


def one_line(statement: str) -> str:
    """Return a statement as a log shows it: on one line, and cut when it is long."""
    line = " ".join(statement.split())
    return line if len(line) <= _STATEMENT_CHARACTERS else f"{line[:_STATEMENT_CHARACTERS]}…"
