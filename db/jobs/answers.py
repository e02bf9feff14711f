"""What a task may answer besides being done: to be asked again later, or that there is nothing to do."""

from __future__ import annotations

from datetime import timedelta


class Snooze(Exception):
    """Run this job again in so many seconds; no attempt is counted. What its open transaction did is rolled back."""

    def __init__(self, delay: timedelta | float) -> None:
        self.delay_seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
        if not 0 <= self.delay_seconds <= 365 * 86_400:
            raise ValueError(f"a job can be snoozed for 0 seconds to a year, and not for {self.delay_seconds}")
        super().__init__(f"again in {self.delay_seconds:g} s")


class Discard(Exception):
    """There is nothing to do for this job: it is cancelled with the reason, and an operator is not called."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
