"""What a schedule is told to be, by celeryconfig or by an operator, and checked before it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from db.checks import checked_text
from db.errors import InvalidSchedule
from db.schedule.rule import Rule, is_number, rule_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

CATCH_UP: Final = ("latest", "all", "skip")
OVERLAP: Final = ("allow", "skip")
JOB_OPTIONS: Final = ("delay", "priority", "dedupe_key", "ordering_key", "max_attempts", "expires")
"""The options of `enqueue` that make sense for each tick; `at` would be the same moment for all."""

_SECONDS: Final = ("delay", "expires")
_LEAST_GRACE_SECONDS: Final = 1.0
_MOST_GRACE_SECONDS: Final = 366 * 86_400.0


@dataclass(frozen=True, slots=True)
class Declaration:
    """A schedule as it is to be. Give either `every_seconds` or `crontab`.

    Args:
        name: which schedule it is.
        task: what each tick enqueues, such as `inventory.reconcile`.
        every_seconds: due at each multiple of it since the Unix epoch, 0.1 s to 366 days.
        crontab: due when the wall clock of `timezone` shows one of its times; five fields.
        timezone: of the IANA database, such as Europe/Berlin. An interval does not depend on it.
        args: of the task, by place.
        kwargs: of the task, by name.
        options: those of `enqueue` named in JOB_OPTIONS; times in seconds or as a timedelta.
        misfire_grace_seconds: a tick that is later than this does not run any more; 1 s to 366 days.
        catch_up: which of several due ticks run: `latest`, `all`, or with `skip` the latest if it is on time.
        overlap: `skip` leaves a tick out while the job of the one before has not ended.

    Raises:
        InvalidSchedule: something about it is wrong; the message names the schedule and the field.
        InvalidText: the name is no text that PostgreSQL can store.
    """

    name: str
    task: str
    every_seconds: float | None = None
    crontab: str | None = None
    timezone: str = "UTC"
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    misfire_grace_seconds: float = 600.0
    catch_up: str = "latest"
    overlap: str = "allow"

    def __post_init__(self) -> None:
        checked_text("name", self.name)
        if not _is_text(self.task):
            self._refuse("task", "must be the name of a task")
        _ = self.rule
        for name, value, allowed in (("catch_up", self.catch_up, CATCH_UP), ("overlap", self.overlap, OVERLAP)):
            if value not in allowed:
                self._refuse(name, f"must be one of {', '.join(allowed)}, and was {value!r}")
        grace = self.misfire_grace_seconds
        if not is_number(grace) or not _LEAST_GRACE_SECONDS <= grace <= _MOST_GRACE_SECONDS:
            self._refuse("misfire_grace_seconds", f"must be from 1 to {_MOST_GRACE_SECONDS:.0f}, and was {grace!r}")
        for name, told, kind, called in (
            ("args", self.args, (list, tuple), "a list"),
            ("kwargs", self.kwargs, dict, "a dictionary"),
            ("options", self.options, dict, "a dictionary"),
        ):
            if not isinstance(told, kind):
                self._refuse(name, f"must be {called}")
        if unknown := sorted(set(self.options) - set(JOB_OPTIONS)):
            self._refuse(str(unknown[0]), f"is no option of a schedule; there are {', '.join(JOB_OPTIONS)}")
        self.columns()

    @property
    def rule(self) -> Rule:
        """When it is due. Raises InvalidSchedule."""
        return rule_of(self.name, self.every_seconds, self.crontab, self.timezone)

    def columns(self) -> dict[str, Any]:
        """Return what the table holds of it."""
        options = {key: _seconds(key, value) for key, value in self.options.items() if value is not None}
        return {
            "name": self.name,
            "task": self.task,
            "args": self._json("args", list(self.args)),
            "kwargs": self._json("kwargs", dict(self.kwargs)),
            "options": self._json("options", options),
            "every_seconds": self.every_seconds,
            "crontab": self.crontab,
            "timezone": self.timezone,
            "misfire_grace_seconds": self.misfire_grace_seconds,
            "catch_up": self.catch_up,
            "overlap": self.overlap,
        }

    def _json(self, name: str, value: Any) -> str:
        try:
            return json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise InvalidSchedule(name=self.name, field=name, problem=f"is not JSON: {error}") from None

    def _refuse(self, name: str, problem: str) -> None:
        raise InvalidSchedule(name=self.name, field=name, problem=problem)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _seconds(key: str, value: Any) -> Any:
    return value.total_seconds() if key in _SECONDS and isinstance(value, timedelta) else value
