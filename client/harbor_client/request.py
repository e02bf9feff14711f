"""A job on its way to the database: checked as far as Python sees it, and written down as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy
from sqlalchemy.orm import InstanceState

from harbor_client.refusal import InvalidJob

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# The escape of NUL, and not a backslash before the text "u0000": backslashes come in pairs.
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Request:
    """One job; `args`, `kwargs` and `options` are JSON."""

    task: str
    args: str
    kwargs: str
    options: str

    def as_json(self) -> str:
        """Return what `harbor_enqueue_many_v1` takes for it."""
        return f'{{"task":{_json(self.task)},"args":{self.args},"kwargs":{self.kwargs},"options":{self.options}}}'


def request(task: str, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]) -> Request:
    """Write a job down.

    Raises:
        InvalidJob: a value cannot be sent; whether it fits the task, the database says.
    """
    if not isinstance(task, str):
        raise InvalidJob("?", "task", "must be the name of a task")
    _dumped("?", "task", task, {})
    placed = {f"args[{place}]": value for place, value in enumerate(args)}
    given = {
        "delay": _seconds(task, "delay", options.get("delay")),
        "at": _moment(task, options.get("at")),
        "expires": _seconds(task, "expires", options.get("expires")),
    }
    if given["delay"] is not None and given["at"] is not None:
        raise InvalidJob(task, "at", "and delay exclude each other")
    wanted = {name: value for name, value in {**options, **given}.items() if value is not None}
    return Request(
        task,
        _dumped(task, "args", list(args), placed),
        _dumped(task, "kwargs", dict(kwargs), kwargs),
        _dumped(task, "options", wanted, wanted),
    )


def _seconds(task: str, name: str, value: Any) -> float | None:
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    if not isinstance(value, timedelta):
        raise InvalidJob(task, name, "must be a timedelta or a number of seconds")
    return value.total_seconds()


def _moment(task: str, value: Any) -> str | None:
    if value is None:
        return None
    if not isinstance(value, datetime):
        raise InvalidJob(task, "at", "must be a datetime")
    if value.utcoffset() is None:
        raise InvalidJob(task, "at", "is naive: it lacks its offset from UTC")
    return value.isoformat()


def _dumped(task: str, field: str, value: Any, parts: Mapping[str, Any]) -> str:
    """Return JSON, or say which of its parts is none."""
    try:
        return _json(value)
    except ValueError as error:
        culprit, problem = field, str(error)
    for name, part in parts.items():
        try:
            _json(part)
        except ValueError as error:
            is_row = isinstance(sqlalchemy.inspect(part, raiseerr=False), InstanceState)
            culprit, problem = str(name), "is an ORM object; pass its primary key" if is_row else str(error)
            break
    raise InvalidJob(task, culprit, problem)


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
