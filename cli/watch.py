"""`harbor jobs watch`: the queues, live on the terminal."""

import json as json_
import os
import select
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cli.figures import COUNTS, LIVE, counted, limits, told
from cli.filters import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from db.jobs.stats import Stats

app = typer.Typer()

_LATE_SECONDS = 60
_PIPED_COLUMNS = 200


@app.command(epilog="Example: harbor jobs watch --interval 2")
def watch(
    *,
    interval: Annotated[float, typer.Option(min=0.2, max=3_600, help="Seconds from one look to the next.")] = 1.0,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many looks; else with q or Ctrl-C.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each look.")] = False,
) -> None:
    """Watch the queues: how many jobs are where, how old the oldest is, how many get done.

    `publ.` have a message that no worker has started; `lost` have a worker
    that says nothing any more; `dead` are those of 24 hours.
    """
    try:
        if json:
            for found in _looks(interval, count):
                print(json_.dumps(told(found)), flush=True)
        else:
            _show(interval, count)
    except KeyboardInterrupt:
        return


def _show(interval: float, count: int | None) -> None:
    from rich.console import Console
    from rich.live import Live

    # A pipe has no width.
    console = Console(width=None if sys.stdout.isatty() else _PIPED_COLUMNS)
    with Live(console=console, auto_refresh=False) as live:
        for found in _looks(interval, count):
            live.update(_drawn(found), refresh=True)


def _looks(interval: float, count: int | None) -> "Iterator[Stats]":
    """Yield what there is to see, each at its time, until `count` or until somebody types q."""
    from db.jobs.stats import stats
    from db.session import snapshot

    seen, next_at = 0, time.monotonic()
    with _keys() as typed_q:
        while True:
            with snapshot() as session:
                found = stats(session)
            yield found
            seen += 1
            # When looking takes longer than the interval, the next look is at once, and none are made up for.
            next_at = max(next_at + interval, time.monotonic())
            if seen == count or typed_q(next_at):
                return


@contextmanager
def _keys() -> "Iterator[_Waits]":
    """Read single keys from a terminal for the length of the block, and leave it as it was."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield _Waits(None)
        return
    import termios
    import tty

    before = termios.tcgetattr(sys.stdin)
    try:
        tty.setcbreak(sys.stdin)
        yield _Waits(sys.stdin.fileno())
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


class _Waits:
    """Waits until a moment of `time.monotonic()`; true when `q` was typed before."""

    def __init__(self, terminal: int | None) -> None:
        self._terminal = terminal

    def __call__(self, until: float) -> bool:
        while (left := until - time.monotonic()) > 0:
            if self._terminal is None:
                time.sleep(left)
            elif select.select([self._terminal], [], [], left)[0] and os.read(self._terminal, 1) in {b"q", b"Q", b""}:
                return True
        return False


def _drawn(found: "Stats") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    at = time.strftime("%H:%M:%SZ", time.gmtime())
    # Without padding it fits into the 80 columns of the smallest terminal.
    drawn = Table(box=SIMPLE_HEAD, padding=0, show_edge=False, title=f"Jobs at {at}, q ends", title_justify="left")
    drawn.add_column("queue", no_wrap=True)
    for column in (*COUNTS, "oldest", "done/s"):
        drawn.add_column(column, justify="right", no_wrap=True)
    drawn.add_column("limits", overflow="fold")
    for name, figures in found.queues.items():
        late = (figures.oldest_due_seconds or 0) > _LATE_SECONDS
        drawn.add_row(
            Text(name),
            *(Text(counted(figures, what), "red" if what == "lost" and figures.lost else "") for what in LIVE),
            Text(counted(figures, "dead"), "red" if figures.dead else ""),
            Text(duration(figures.oldest_due_seconds), "red" if late else ""),
            f"{figures.done_per_second:.1f}",
            Text(limits(found.limits[name]), "yellow"),
        )
    return drawn
