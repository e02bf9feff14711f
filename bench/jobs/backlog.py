"""What a long queue costs a relay: a million jobs that wait, be it for their turn or because an operator paused them.

Promise: all sides publish the same number of jobs of the same kind, from databases that differ in what else waits.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Final

from bench import database
from bench.crowd import crowd
from bench.jobs import ledger
from bench.jobs.goals import BACKLOG
from bench.jobs.publish import publishing
from bench.jobs.relaying import relay
from bench.measure import Result, ratios, take_turns

if TYPE_CHECKING:
    from bench.jobs.size import Size

_LONG: Final = "default"
_SHORT: Final = "bulk"


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many jobs wait in each of two queues, of which one is paused whenever the other is relayed."""

    long: int
    short: int


@dataclass(frozen=True, slots=True)
class Turn:
    """So many rows to relay from `queue`, while `paused` is paused."""

    rows: int
    queue: str
    paused: str


# ---- these run in a process that uses one database alone -------------------------------------------------------------


def write(_: int, waiting: Waiting) -> None:
    """Write what waits."""
    ledger.declare()
    ledger.fill(_LONG, waiting.long)
    ledger.fill(_SHORT, waiting.short)
    database.vacuum()


def rate(_: int, turn: Turn) -> float:
    """Relay and return the rows per second; as many jobs wait afterwards as did before."""
    ledger.resume(turn.queue)
    ledger.pause(turn.paused)
    with publishing() as publisher:
        relayed = relay(publisher, turn.rows, queue=turn.queue)
    ledger.delete("published")
    ledger.fill(turn.queue, turn.rows)
    database.vacuum()
    return relayed


# ---- what is measured ------------------------------------------------------------------------------------------------


def run_backlog(size: Size) -> list[Result]:
    """Measure a relay with few and with many waiting jobs; the worse of the two kinds of many counts."""
    few_wait = Waiting(size.few_rows, size.few_rows)
    many_wait = Waiting(size.many_rows, size.few_rows)
    with ExitStack() as stack:
        # The process of a crowd uses the database that this one uses when the crowd starts.
        stack.enter_context(database.another())
        few = stack.enter_context(crowd(1))
        few.do(write, few_wait)
        stack.enter_context(database.another())
        many = stack.enter_context(crowd(1))
        many.do(write, many_wait)
        waiting = Turn(size.backlog_rows, queue=_LONG, paused=_SHORT)
        paused = Turn(size.backlog_rows, queue=_SHORT, paused=_LONG)
        rates = take_turns(
            {
                "few": lambda: few.do(rate, waiting)[0],
                "waiting": lambda: many.do(rate, waiting)[0],
                "paused": lambda: many.do(rate, paused)[0],
            },
            rounds=size.backlog_rounds,
            warm_ups=1,
            unit="rows/s",
        )
    kept = {name: ratios(rates[name], rates["few"]) for name in ("waiting", "paused")}
    worse = min(kept, key=lambda name: median(kept[name]))
    note = f"{worse}: {median(rates[worse]):,.0f} rows/s, among few {median(rates['few']):,.0f}"
    extra = {f"{name}_rows_per_s": median(told) for name, told in rates.items()}
    extra |= {f"{name}_ratio": median(told) for name, told in kept.items()}
    return [Result(BACKLOG, kept[worse], note, extra)]
