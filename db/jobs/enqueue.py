"""Putting a job in: its row is written at once, in the caller's transaction, and lives and dies with it.

The checks stand in SQL, in `harbor_enqueue_many_v1`, so that every language gets the same ones. Here values are turned
into JSON, and where this process has declared the task its annotations are checked in full.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.errors import InvalidArgument, InvalidJob
from db.jobs.kinds import declared
from db.schema import Base

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from uuid import UUID

    from sqlalchemy.orm import Session

REFUSED: Final = "22X10"
"""The SQLSTATE of a job that cannot be enqueued; COLUMN names its field, TABLE its task and DETAIL the problem."""

# The escape of NUL, and not a backslash before the text "u0000": backslashes come in pairs.
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

_ENQUEUE_MANY: Final = text("SELECT harbor_enqueue_many_v1(CAST(:jobs AS jsonb))")
_ENQUEUE: Final = text(
    "SELECT harbor_enqueue_v1(:task, CAST(:args AS jsonb), CAST(:kwargs AS jsonb), CAST(:options AS jsonb))"
)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job to be enqueued by `enqueue_many`; the fields are the arguments of `enqueue`."""

    task: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    delay: timedelta | float | None = None
    at: datetime | None = None
    priority: int | None = None
    dedupe_key: str | None = None
    ordering_key: str | None = None
    max_attempts: int | None = None
    expires: timedelta | float | None = None


def enqueue(
    session: Session,
    task: str,
    *args: Any,
    delay: timedelta | float | None = None,
    at: datetime | None = None,
    priority: int | None = None,
    dedupe_key: str | None = None,
    ordering_key: str | None = None,
    max_attempts: int | None = None,
    expires: timedelta | float | None = None,
    **kwargs: Any,
) -> UUID:
    """Write a job and return its id, which is the task's id in Celery, too.

    Args:
        session: the caller's session; nothing is committed, and a savepoint that is rolled back takes the job with it.
        task: its name, such as `reservations.release`.
        args: by place, JSON values.
        delay: how long the job waits, a timedelta or seconds; at most a year.
        at: when it is due, with a time zone; instead of `delay`.
        priority: 0 goes first, 9 last.
        dedupe_key: while a job with this key has not ended, its id is returned and nothing is written. Whoever enqueues
            the same key at the same moment waits until this transaction ends.
        ordering_key: jobs of one key run one at a time, in the order in which their transactions commit: who enqueues
            the same key at the same moment waits until this transaction ends.
        max_attempts: how often it is claimed at most, 1 to 1,000.
        expires: counted from now, after which it is not started any more; a timedelta or seconds.
        kwargs: by name, JSON values.

    Raises:
        InvalidArgument: an argument is an ORM object.
        InvalidJob: something else about it is wrong; the message names the field. Where the database noticed, the
            transaction can only be rolled back, at least to a savepoint.
    """
    request = JobRequest(task, args, kwargs, delay, at, priority, dedupe_key, ordering_key, max_attempts, expires)
    written = _written(request)
    told = {"task": task, "args": written.args, "kwargs": written.kwargs, "options": written.options}
    with _refusals():
        answer: UUID = session.execute(_ENQUEUE, told).scalar_one()
    return answer


def enqueue_many(session: Session, jobs: Iterable[JobRequest]) -> list[UUID]:
    """Write up to 10,000 jobs in one statement, all or none, and return their ids in the same order.

    Raises:
        InvalidArgument, InvalidJob: as `enqueue` does; the message says which of the jobs it is, counted from 0.
    """
    if not isinstance(jobs, Iterable):
        raise InvalidJob(task="?", field="jobs", problem="must be a list of JobRequest")
    told = [_written_at(place, request).as_json() for place, request in enumerate(jobs)]
    if not told:
        return []
    with _refusals():
        return list(session.scalars(_ENQUEUE_MANY, {"jobs": f"[{','.join(told)}]"}))


@dataclass(frozen=True, slots=True)
class _Written:
    """A request as JSON texts."""

    task: str
    args: str
    kwargs: str
    options: str

    def as_json(self) -> str:
        """Return what `harbor_enqueue_many_v1` takes for one job."""
        task = _json(self.task)
        return f'{{"task":{task},"args":{self.args},"kwargs":{self.kwargs},"options":{self.options}}}'


def _written_at(place: int, request: JobRequest) -> _Written:
    """Write down one request of a batch; an error says which."""
    if not isinstance(request, JobRequest):
        raise InvalidJob(task="?", field=f"jobs[{place}]", problem="must be a JobRequest")
    try:
        return _written(request)
    except InvalidJob as error:
        raise InvalidJob(**(error.ids | {"field": f"jobs[{place}].{error.ids['field']}"})) from None
    except InvalidArgument as error:
        raise InvalidArgument(**(error.ids | {"argument": f"jobs[{place}].{error.ids['argument']}"})) from None


def _written(request: JobRequest) -> _Written:
    """Write a request down. Raises InvalidArgument and InvalidJob."""
    if not isinstance(request.task, str):
        raise InvalidJob(task="?", field="task", problem="must be the name of a task")
    _dumped("?", "task", request.task, {})
    if not isinstance(request.args, (list, tuple)):
        raise InvalidJob(task=request.task, field="args", problem="must be a list or a tuple")
    if not isinstance(request.kwargs, Mapping):
        raise InvalidJob(task=request.task, field="kwargs", problem="must be a mapping")
    known = declared(request.task)
    names = [parameter.name for parameter in known.parameters] if known else []
    placed = {names[n] if n < len(names) else f"args[{n}]": value for n, value in enumerate(request.args)}
    for name, value in (*placed.items(), *request.kwargs.items()):
        if isinstance(value, Base):
            raise InvalidArgument(task=request.task, argument=name)
    options = {name: value for name, value in _options(request).items() if value is not None}
    written = _Written(
        request.task,
        _dumped(request.task, "args", request.args, placed),
        _dumped(request.task, "kwargs", dict(request.kwargs), request.kwargs),
        _dumped(request.task, "options", options, options),
    )
    if known is not None and not known.plain:
        # What SQL checks are JSON's types; the rest of an annotation only Python knows.
        known.bind(json.loads(written.args), json.loads(written.kwargs))
    return written


def _options(request: JobRequest) -> dict[str, Any]:
    return {
        "delay": _seconds(request, "delay", request.delay),
        "at": _moment(request),
        "priority": request.priority,
        "dedupe_key": request.dedupe_key,
        "ordering_key": request.ordering_key,
        "max_attempts": request.max_attempts,
        "expires": _seconds(request, "expires", request.expires),
    }


def _seconds(request: JobRequest, name: str, value: timedelta | float | None) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    if not isinstance(value, timedelta):
        raise InvalidJob(task=request.task, field=name, problem="must be a timedelta or a number of seconds")
    return value.total_seconds()


def _moment(request: JobRequest) -> str | None:
    if request.at is None:
        return None
    if not isinstance(request.at, datetime):
        raise InvalidJob(task=request.task, field="at", problem="must be a datetime")
    if request.at.utcoffset() is None:
        raise InvalidJob(task=request.task, field="at", problem="is naive: it lacks its offset from UTC")
    return request.at.isoformat()


def _dumped(task: str, field_: str, value: Any, parts: Mapping[str, Any]) -> str:
    """Return JSON, or say which of its parts is none."""
    try:
        return _json(value)
    except ValueError as error:
        culprit, problem = field_, str(error)
    for name, part in parts.items():
        try:
            _json(part)
        except ValueError as error:
            culprit, problem = str(name), str(error)
            break
    raise InvalidJob(task=task, field=culprit, problem=problem)


def _json(value: Any) -> str:
    """Return what jsonb can hold, which is a little less than JSON. Raises ValueError, which says the problem."""
    try:
        dumped = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        dumped.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half a character") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from None
    if "\\u0000" in dumped and _NUL.search(dumped):
        raise ValueError("holds a NUL character")
    return dumped


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn the database's refusal of a job into a HarborError that names its field."""
    try:
        yield
    except DBAPIError as error:
        told: Any = getattr(error.orig, "diag", None)
        if told is None or told.sqlstate != REFUSED:
            raise
        place, _, _ = told.message_primary.partition("job ")
        field_ = f"{place.removesuffix(': ')}.{told.column_name}" if place else told.column_name
        raise InvalidJob(task=told.table_name, field=field_, problem=told.message_detail) from None
