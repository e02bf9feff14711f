"""The fault: the worker that expires holds is killed midway, and comes back as a supervisor would bring it."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from demo import audit
from demo.processes import START_SECONDS

if TYPE_CHECKING:
    from datetime import datetime

    from demo.processes import Crew

POOL: Final = "expiry"
DOWN_SECONDS: Final = 2.0
# Beat's period for reservations.expire: the first sweep comes so long after the worker is back, at the latest.
TICK: Final = timedelta(seconds=5)


class Fault:
    """A worker's death and return, one step at a time; `state` says in a word where it is, `news` what happened."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._worker = crew.workers[POOL]
        self._since = self._killed = 0.0
        self._begins: datetime | None = None
        self.state = "ready"
        self.news: tuple[str, ...] = ()
        self.window: tuple[datetime, datetime] | None = None

    @property
    def count(self) -> int:
        """Return how many faults there have been."""
        return int(self._begins is not None)

    @property
    def over(self) -> bool:
        """Return whether the worker has been killed and is back."""
        return self.window is not None

    def step(self, progress: float) -> None:
        """Do what is due when this share of the orders (0 to 1) has been answered.

        Raises:
            DemoError: the new worker does not come up.
        """
        elapsed_seconds = time.monotonic() - self._since
        if self._begins is None and progress >= 0.5:
            self._begins, self.state = audit.now(), "killed"
            self._since = self._killed = time.monotonic()
            self._worker.end()
            self.news += (f"{self._worker.name} was killed with SIGKILL: nobody expires holds now",)
        elif self.state == "killed" and elapsed_seconds >= DOWN_SECONDS:
            self._since, self.state = time.monotonic(), "starting"
            self._worker.start()
        elif self.state == "starting" and self._crew.ready(POOL):
            assert self._begins is not None
            self.state = "ready"
            self.window = (self._begins, audit.now() + TICK)
            self.news += (f"{self._worker.name} is back after {time.monotonic() - self._killed:.1f} s",)
        elif self.state == "starting" and elapsed_seconds > START_SECONDS:
            raise self._worker.failed(f"did not come back within {START_SECONDS} s")
