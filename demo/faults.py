"""The faults: what a house has to live with, one after the other while the orders run, and each told of in a sentence.

What is killed comes back as a supervisor would bring it. What would meet hardly a job in a quiet moment comes in a busy
one: when many letters were enqueued just now. A fault is a generator: it yields a sentence for the news or,
while it waits for something, None, and its value is the moment at which the harm was over.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from redis import Redis

from db.settings import settings
from demo import audit, ledger
from demo.process import LEASE_SECONDS, REPUBLISH_SECONDS
from demo.processes import START_SECONDS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from demo.ledger import Progress, Window
    from demo.process import Process
    from demo.processes import Crew
    from stack import Stack

DOWN_SECONDS: Final = 2.0
# What a fault took away is missed when a lease or a message's time is over, and a relay looks for that every 5 s.
TRACES_SECONDS: Final = max(LEASE_SECONDS, REPUBLISH_SECONDS) + 5 + 1
BUSY_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.005
NOT_OURS: Final = "PostgreSQL is not the demo's own, so it is not restarted"

Steps = Generator[str | None, None, float]


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, called `name` while it lasts, when this share of the orders (0 to 1) has been answered."""

    name: str
    share: float
    steps: Callable[[], Steps]


def of(crew: Crew, servers: Stack) -> list[Fault]:
    """Return the faults of a demo, in their order."""
    worker, relay, beat = crew.workers["default-1"], crew.relays[0], crew.beats[0]
    restart = [Fault("PostgreSQL restarts", 0.45, lambda: _restarted(servers))] if servers.owned else []
    return [
        Fault("Redis is empty", 0.15, lambda: _emptied(shared=not servers.owned)),
        Fault(f"{worker.name} is dead", 0.3, lambda: _killed(worker, lambda: crew.ready("default-1"), _begun)),
        *restart,
        Fault(f"{relay.name} is dead", 0.6, lambda: _killed(relay, crew.relays_ready, _published)),
        Fault(f"{beat.name} is dead", 0.75, lambda: _killed(beat, crew.beats_ready)),
    ]


class Faults:
    """Faults as they come, one at a time and one step at a time; make it while the database answers.

    `now` says what is wrong, and is empty while nothing is.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        # The clock of holds and jobs is the database's, which does not answer in each of the faults.
        self._at_zero = audit.now() - timedelta(seconds=time.monotonic())
        self._coming = deque(faults)
        self._steps: Steps | None = None
        self._began = 0.0
        self.total = len(faults)
        self.now = ""
        self.news: tuple[str, ...] = ()
        self.windows: list[Window] = []

    @property
    def count(self) -> int:
        """Return how many faults there have been, with the one at hand."""
        return self.total - len(self._coming)

    @property
    def over(self) -> bool:
        """Return whether there was every fault, and what it took away is back."""
        return not self._coming and self._steps is None

    def step(self, progress: float) -> None:
        """Do what is due when this share of the orders has been answered.

        Raises:
            DemoError: a process does not come back.
            stack.ServerDiedError: a server does not come back.
        """
        if self._steps is None:
            if not self._coming or progress < self._coming[0].share:
                return
            fault = self._coming.popleft()
            self._steps, self._began, self.now = fault.steps(), time.monotonic(), fault.name
        try:
            while (sentence := next(self._steps)) is not None:
                self.news += (sentence,)
        except StopIteration as end:
            self.windows.append((self._moment(self._began), self._moment(max(end.value, time.monotonic()))))
            self._steps, self.now = None, ""

    def _moment(self, seconds: float) -> datetime:
        return self._at_zero + timedelta(seconds=seconds)


def _killed(process: Process, back: Callable[[], bool], busy: Callable[[Progress], bool] | None = None) -> Steps:
    if busy is not None:
        _send_letters(busy)
    killed = time.monotonic()
    process.end()
    yield f"{process.name} was killed with SIGKILL{f', with {ledger.LETTERS} letters to send' if busy else ''}"
    while time.monotonic() < killed + DOWN_SECONDS:
        yield None
    process.start()
    while not back():
        if time.monotonic() > killed + DOWN_SECONDS + START_SECONDS:
            raise process.failed(f"did not come back within {START_SECONDS} s")
        yield None
    yield f"{process.name} is back after {time.monotonic() - killed:.1f} s"
    return killed + TRACES_SECONDS


def _emptied(*, shared: bool) -> Steps:
    # The stack's own server has nothing but the demo's broker and cache; on another one the rest is somebody's.
    with Redis.from_url(settings().broker_url.get_secret_value()) as broker:
        letters = _send_letters(_begun)
        broker.flushdb() if shared else broker.flushall()
    command = "FLUSHDB of the broker's database" if shared else "FLUSHALL"
    lost = ledger.progress(letters).published
    yield f"Redis was emptied by {command}, with {lost} of {ledger.LETTERS} letters on their way"
    return time.monotonic() + TRACES_SECONDS


def _send_letters(busy: Callable[[Progress], bool]) -> list[UUID]:
    """Send letters and wait until somebody is busy with them, which takes a moment."""
    letters = ledger.send_letters()
    deadline = time.monotonic() + BUSY_SECONDS
    while not busy(ledger.progress(letters)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return letters


def _published(letters: Progress) -> bool:
    return letters.published > 0


def _begun(letters: Progress) -> bool:
    return letters.started > 0


def _restarted(servers: Stack) -> Steps:
    yield "PostgreSQL restarts: every connection is cut"
    began = time.monotonic()
    with ThreadPoolExecutor(1, thread_name_prefix="restart") as aside:
        restarting = aside.submit(servers.restart_postgres)
        while not restarting.done():
            yield None
    restarting.result()
    back = time.monotonic()
    yield f"PostgreSQL is back after {back - began:.1f} s"
    return back + TRACES_SECONDS
