"""How much a run does: in full, or quickly to see that everything works; the numbers of a quick run mean nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Size:
    """How much is done: `workers` are the processes of each side that run jobs; the others count rounds and rows."""

    race_rounds: int
    race_jobs: int
    workers: int

    publish_rounds: int
    published_rows: int
    relayed_rows: int

    cost_rounds: int
    cost_pairs: int

    latency_rounds: int
    latency_jobs: int

    backlog_rounds: int
    backlog_rows: int
    few_rows: int
    many_rows: int

    idle_rounds: int
    idle_seconds: float


FULL: Final = Size(
    race_rounds=5,
    race_jobs=1_500,  # Half a second to five for a round of each side, which is half of what a relay waits for a start.
    workers=2,
    publish_rounds=5,
    published_rows=1_000,
    relayed_rows=4_000,  # In about the time in which the rival sends its thousand.
    cost_rounds=5,
    cost_pairs=200,
    latency_rounds=5,
    latency_jobs=100,  # 99 of 100 is one that was measured.
    backlog_rounds=7,
    backlog_rows=2_000,  # Four leases, less than half a second: more rounds say more than longer ones.
    few_rows=10_000,
    many_rows=1_000_000,
    idle_rounds=5,
    idle_seconds=5.0,  # As often as Beat's shortest schedule is due, and the relay sweeps.
)
QUICK: Final = Size(
    race_rounds=1,
    race_jobs=100,
    workers=2,
    publish_rounds=1,
    published_rows=100,
    relayed_rows=100,
    cost_rounds=1,
    cost_pairs=20,
    latency_rounds=1,
    latency_jobs=20,
    backlog_rounds=1,
    backlog_rows=200,
    few_rows=1_000,
    many_rows=10_000,
    idle_rounds=1,
    idle_seconds=1.0,
)
