"""One demo from the first server to the last number: start, replay with faults, wait for what is open, do the books."""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy.exc import DBAPIError

import stack
from db.session import transaction
from demo import audit, database, faults, ledger
from demo.catalogue import open_shop
from demo.errors import DemoError
from demo.faults import Faults
from demo.processes import Crew, pinged
from demo.report import Report
from demo.shoppers import HOLD, Shoppers
from demo.survive import is_lost
from demo.view import Frame, View

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console
    from sqlalchemy import URL

    from demo.trace import Trace

# At this pace a laptop's two cores are busy and not overloaded; a small trace is over sooner, but not before all that
# was killed is back, and a large one is at least given the time in which one can watch it.
SECONDS_PER_ORDER: Final = 0.4
WINDOW_SECONDS: Final = (5.0, 60.0)

FRAME_SECONDS: Final = 0.25
NOTICE_SECONDS: Final = 1.0  # The stack looks at its servers every quarter of a second.
PULSE_SECONDS: Final = 1.0
# The hold, a tick, a lease that runs out, and a worker that is still starting.
END_DEADLINE_SECONDS: Final = HOLD.total_seconds() + 40
# A Beat that could not reach the database looks again after 5 s at the latest.
TICK_DEADLINE_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Script:
    """What is to be played."""

    trace: Trace
    seed: int
    generated: bool
    stay: bool


class Demo:
    """A demo that runs, and everything that runs for it."""

    def __init__(self, script: Script, console: Console) -> None:
        self._script = script
        self._console = console
        self._began = time.monotonic()

    def play(self, done: Callable[[Report], None]) -> Report:
        """Run the demo, call `done` with its report, and with `stay` keep all running until KeyboardInterrupt.

        Raises:
            DemoError: a process of the house does not come up, or a server cannot be used.
            HarborError, SQLAlchemyError: the database refused what every demo needs.
            stack.StackError: a server does not start, or died.
        """
        with ExitStack() as house:
            self._say("getting PostgreSQL and Valkey ready")
            servers = house.enter_context(stack.running())
            house.enter_context(_blaming(servers))
            url = house.enter_context(database.fresh(servers.environ, keep=self._script.stay))
            ledger.prepare()
            with transaction() as session:
                variant_ids = open_shop(session, self._script.trace, self._script.seed)
            logs = Path(house.enter_context(tempfile.TemporaryDirectory(prefix="harbor-demo-")))
            crew = house.enter_context(self._crew(url, logs))
            report = self._replay(servers, crew, variant_ids)
            done(report)
            if self._script.stay:
                self._stay(servers, crew, url)
        return report

    def _crew(self, url: URL, logs: Path) -> Crew:
        # Messages do not say which database they are for: another Harbor's workers would sweep theirs for our ticks.
        if others := pinged():
            raise DemoError(f"{', '.join(others)} already work for HARBOR_BROKER_URL: give the demo a Redis of its own")
        self._say("starting five workers, two relays, two Beats and Flower")
        return Crew(url.database or "", logs)

    def _replay(self, servers: stack.Stack, crew: Crew, variant_ids: dict[str, int]) -> Report:
        trace = self._script.trace
        least, most = WINDOW_SECONDS
        window_seconds = max(least, min(most, len(trace.orders) * SECONDS_PER_ORDER))
        wrong = Faults(faults.of(crew, servers))
        with Shoppers(trace, variant_ids, seed=self._script.seed, window_seconds=window_seconds) as shoppers:
            self._watch(shoppers, servers, crew, wrong)
        self._say("checking the books")
        ticks = self._ticks()
        if not self._script.stay:
            crew.stop()
            audit.wait_until_alone()
        return Report(
            trace=self._script.trace,
            counts=shoppers.tally.counts,
            errors=shoppers.tally.errors,
            books=audit.audit(wrong.windows),
            jobs=ledger.jobs(wrong.windows),
            ticks=ticks,
            faults=wrong.count,
            left_out=() if servers.owned else (faults.NOT_OURS,),
            seconds=time.monotonic() - self._began,
            seed=self._script.seed,
            generated=self._script.generated,
        )

    def _watch(self, shoppers: Shoppers, servers: stack.Stack, crew: Crew, wrong: Faults) -> None:
        """Show what happens until every shopper has gone, all is back, and every hold and every follow-up has ended."""
        began = time.monotonic()
        orders = len(self._script.trace.orders)
        pulse, pulse_at, deadline = audit.Pulse(), 0.0, float("inf")
        with View(self._console) as view:
            while True:
                servers.check()
                crew.check()
                now = time.monotonic()
                counts = shoppers.tally.counts
                wrong.step(counts["orders"] / orders if orders else 1.0)
                if now >= pulse_at:
                    pulse, pulse_at = _pulse(wrong) or pulse, now + PULSE_SECONDS
                told = (wrong.count, wrong.total)
                view.show(Frame(now - self._began, now - began, orders, counts, pulse, told, wrong.now, wrong.news))
                if shoppers.finished and wrong.over:
                    deadline = min(deadline, now + END_DEADLINE_SECONDS)
                    if now >= deadline or not (audit.pulse().open_holds or ledger.unended()):
                        return
                time.sleep(FRAME_SECONDS)

    def _ticks(self) -> ledger.Ticks:
        """Count the ticks due until now, as soon as the Beats have decided all of them or had the time to."""
        until, deadline = audit.now(), time.monotonic() + TICK_DEADLINE_SECONDS
        while (ticks := ledger.ticks(until)).ticks_missed and time.monotonic() < deadline:
            time.sleep(FRAME_SECONDS)
        return ticks

    def _stay(self, servers: stack.Stack, crew: Crew, url: URL) -> None:
        access = crew.flower_access
        self._console.print(
            f"\nFlower    {access.url}   user {access.user}   password {access.password}"
            f"\npsql      {database.psql_url(url)}"
            "\n\nAll of it keeps running. Ctrl-C ends it.",
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
        while True:
            servers.check()
            crew.check()
            time.sleep(1)

    def _say(self, what: str) -> None:
        self._console.print(f"[dim]{time.monotonic() - self._began:5.1f} s  {what}[/]", highlight=False)


def _pulse(wrong: Faults) -> audit.Pulse | None:
    """Return how things stand, or None while a fault keeps the database from telling."""
    try:
        return audit.pulse()
    except DBAPIError as error:
        if not wrong.now or not is_lost(error):
            raise
        return None


@contextmanager
def _blaming(servers: stack.Stack) -> Iterator[None]:
    """Name the server that died, whatever failed first because of it, here or while things are being stopped.

    Raises:
        stack.ServerDiedError: one did.
    """
    try:
        yield
    except Exception:
        servers.check(NOTICE_SECONDS)
        raise
