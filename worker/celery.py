"""The Celery app: `celery -A worker worker|beat|inspect|…` finds it here, configured by celeryconfig at the root."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from celery import Celery

from db.errors import InvalidArgument, SettingsError
from db.schema import Base
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.result import AsyncResult


class Harbor(Celery):
    """A Celery app that refuses ORM objects as arguments, whether a task is sent by `apply_async` or by name."""

    def send_task(
        self,
        name: str,
        args: Sequence[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        *rest: Any,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Publish a message for the task `name`. Raises InvalidArgument when an argument is an ORM object."""
        for place, value in enumerate(args or ()):
            if isinstance(value, Base):
                raise InvalidArgument(task=name, argument=self._argument(name, place))
        for argument, value in (kwargs or {}).items():
            if isinstance(value, Base):
                raise InvalidArgument(task=name, argument=argument)
        return super().send_task(name, args, kwargs, *rest, **options)

    def _argument(self, name: str, place: int) -> str:
        """Return the name of a positional argument of a task that this process knows, else its number."""
        known = self.tasks.get(name)
        names = list(inspect.signature(known.run).parameters) if known is not None else []
        return names[place] if place < len(names) else str(place + 1)


try:
    settings()
except SettingsError as error:
    # This module is where a process starts; a missing variable is for its operator, who needs no traceback.
    raise SystemExit(f"harbor: {error}") from None

app = Harbor("harbor", task_cls="worker.task:Task")
app.config_from_object("celeryconfig")

import worker.lifecycle  # noqa: E402, F401 - connects the signals, once there is an app
