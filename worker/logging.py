"""One log: lines a person can read in dev, JSON in prod, whether they come from Harbor, Celery or a library.

An event is a constant name and its data are fields, so that a log can be searched. Nothing here logs arguments.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import structlog

from db.log import Event

if TYPE_CHECKING:
    from structlog.typing import EventDict, Processor

    from db.settings import Settings

_QUIET = {
    # Celery writes two lines for each task at INFO; the base Task writes one, with fields.
    "celery.app.trace": logging.WARNING,
    "celery.worker.strategy": logging.WARNING,
    # One line for each task that it sends; whoever runs the task says so.
    "celery.beat": logging.WARNING,
    # One line for each pool that is closed, as a process does before it forks.
    "db.pool": logging.WARNING,
    # It warns of each question that no worker answers, as at every start, when it is up before them.
    "flower.inspector": logging.ERROR,
}


class _WithoutBodies(logging.Filter):
    """Cuts Celery's report of a message that it cannot use to its first line: the rest is the whole message."""

    def filter(self, record: logging.LogRecord) -> bool:
        told = str(record.msg)
        if "full contents of the message" in told:
            record.msg, record.args, record.exc_info = record.getMessage().strip().splitlines()[0], None, None
        elif "decode message body" in told:
            record.msg, record.args, record.exc_info = "Cannot decode a message's body; it is parked.", None, None
        return True


def configure(told: Settings) -> None:
    """Send every record of this process to stderr, in the format of its environment."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        # First, so that a line below the level costs nothing.
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_fields_of_event, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_rendering(told)],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(told.log_level)
    logging.getLogger("celery.worker.consumer.consumer").addFilter(_WithoutBodies())
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(max(level, root.level))


def _fields_of_event(_logger: object, _method: str, told: EventDict) -> EventDict:
    event = told["_record"].msg
    return {**told, "event": event.name, **event.fields} if isinstance(event, Event) else told


def _rendering(told: Settings) -> list[Processor]:
    if told.env == "dev":
        # The default shows each frame's local variables, which hold arguments and bind values.
        plain = structlog.dev.plain_traceback
        return [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
