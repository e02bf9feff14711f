"""What is to be done when, shared by all shoppers: whoever is free takes what is due.

Nobody waits inside a deed for the next one to fall due, so a few shoppers can have many customers who are thinking.
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from itertools import count
from threading import Condition
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Deed = Callable[[], None]


class Agenda:
    """Deeds and their moments, in seconds after the agenda was made.

    Args:
        planned: the deeds known from the start, in the order of their moments.
    """

    def __init__(self, planned: Iterable[tuple[float, Deed]]) -> None:
        self._began = time.monotonic()
        self._planned = deque(planned)
        # Customers who were served come back to pay. They go first: behind a backlog they would all be too late.
        self._returning: list[tuple[float, int, Deed]] = []
        self._numbers = count()
        self._doing = 0
        self._closed = False
        self._changed = Condition()

    def come_back(self, in_seconds: float, deed: Deed) -> None:
        """Add a deed that falls due in so many seconds from now."""
        with self._changed:
            heapq.heappush(self._returning, (self._now() + in_seconds, next(self._numbers), deed))
            self._changed.notify()

    def close(self) -> None:
        """Let everybody go home after the deed at hand."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Return whether everybody is to go home."""
        return self._closed

    def deeds(self) -> Iterator[Deed]:
        """Yield deeds as they fall due, until none is left and no deed that is being done can bring another."""
        while (deed := self._take()) is not None:
            try:
                yield deed
            finally:
                self._done()

    def _take(self) -> Deed | None:
        with self._changed:
            while not self._closed and (self._planned or self._returning or self._doing):
                for due, take in self._next():
                    if due <= self._now():
                        self._doing += 1
                        return take()
                self._changed.wait(min((due - self._now() for due, _ in self._next()), default=None))
            return None

    def _next(self) -> Iterator[tuple[float, Callable[[], Deed]]]:
        if self._returning:
            yield self._returning[0][0], lambda: heapq.heappop(self._returning)[2]
        if self._planned:
            yield self._planned[0][0], lambda: self._planned.popleft()[1]

    def _done(self) -> None:
        with self._changed:
            self._doing -= 1
            if not (self._planned or self._returning or self._doing):
                self._changed.notify_all()

    def _now(self) -> float:
        return time.monotonic() - self._began
