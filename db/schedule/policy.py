"""What becomes of due ticks: each runs, or is left out for one reason that is written down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

ON_TIME_SECONDS: Final = 10.0
"""With catch_up `skip` only a tick that is no later than this runs."""

PAUSED: Final = "paused"
MISFIRE: Final = "misfire"
SUPERSEDED: Final = "superseded"
OVERLAP: Final = "overlap"


@dataclass(frozen=True, slots=True)
class Policy:
    """How a schedule treats ticks that are late, several or too soon; the fields are those of `Declaration`."""

    misfire_grace_seconds: float = 600.0
    catch_up: str = "latest"
    overlap: str = "allow"
    paused: bool = False

    def decide(
        self, due: Sequence[datetime], now: datetime, *, newest: bool = True, busy: bool = False
    ) -> list[str | None]:
        """Return for each due time why it is left out, or None when it runs.

        Args:
            due: ascending.
            now: the present moment.
            newest: the last of `due` is the newest that there is; else more are due, which come in the next call.
            busy: the job of the tick before has not ended.
        """
        if self.paused:
            return [PAUSED] * len(due)
        grace_seconds = self.misfire_grace_seconds
        if self.catch_up == "skip":
            grace_seconds = min(grace_seconds, ON_TIME_SECONDS)
        oldest = now - timedelta(seconds=grace_seconds)
        decided: list[str | None] = []
        for place, moment in enumerate(due):
            if moment < oldest:
                decided.append(MISFIRE)
            elif self.catch_up != "all" and not (newest and place == len(due) - 1):
                decided.append(SUPERSEDED)
            elif self.overlap == "skip" and busy:
                decided.append(OVERLAP)
            else:
                decided.append(None)
                busy = True
        return decided
