"""What there is to see while the orders run: a live panel on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from demo.audit import Pulse

if TYPE_CHECKING:
    from collections import Counter
    from types import TracebackType
    from typing import Self

    from rich.console import Console, RenderableType

LINE_SECONDS: Final = 5.0
_BAR_WIDTH: Final = 40


@dataclass(frozen=True, slots=True)
class Frame:
    """One moment of the demo: shoppers' counts, the database's pulse and what is wrong.

    `seconds` are those since the demo began and `shopping_seconds` those since the shoppers came; `faults` says how
    many there were of how many, `fault` is the one at hand, and `news` are sentences, the newest last.
    """

    seconds: float
    shopping_seconds: float
    orders: int
    counts: Counter[str]
    pulse: Pulse = field(default_factory=Pulse)
    faults: tuple[int, int] = (0, 0)
    fault: str = ""
    news: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        """Return how many orders have been answered."""
        return self.counts["orders"]

    @property
    def left(self) -> str:
        """Return how long the rest of the orders will take, for a person."""
        if self.done >= self.orders:
            return "all answered"
        if not self.done or self.shopping_seconds < 1:
            return "starting"
        return f"{self.shopping_seconds / self.done * (self.orders - self.done):.0f} s left"

    @property
    def numbers(self) -> dict[str, str]:
        """Return the numbers to show, by their names."""
        return {
            "holds": f"{self.counts['holds']:,}",
            "sold out": f"{self.counts['sold_out']:,}",
            "confirmed": f"{self.counts['confirmed']:,}",
            "released": f"{self.counts['released']:,}",
            "expired": f"{self.pulse.expired_holds:,}",
            "units held": f"{self.pulse.held_units:,}",
            "units sold": f"{self.counts['sold_units']:,}",
            "sweep lag": f"{self.pulse.lag_seconds:.1f} s",
            "jobs done": f"{self.pulse.jobs_done:,}",
            "waiting": f"{self.pulse.jobs_waiting:,}",
            "ticks": f"{self.pulse.ticks:,}",
        }

    @property
    def trouble(self) -> str:
        """Return how many faults there have been and what is wrong now."""
        count, total = self.faults
        return f"faults {count} of {total}{', now ' if self.fault else ''}{self.fault}"


class View:
    """Shows frames on a console for the length of a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._next_line = time.monotonic()
        self._news_told = 0

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, frame: Frame) -> None:
        """Show this moment; on no terminal, news at once and the numbers every five seconds."""
        if self._live is not None:
            self._live.update(panel(frame), refresh=True)
            return
        for sentence in frame.news[self._news_told :]:
            self._console.print(f"{frame.seconds:5.1f} s  {sentence}", soft_wrap=True)
        self._news_told = len(frame.news)
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            self._console.print(line(frame), soft_wrap=True)


def line(frame: Frame) -> str:
    """Return a moment as one line of text."""
    numbers = " · ".join(f"{name} {number}" for name, number in frame.numbers.items())
    return (
        f"{frame.seconds:5.1f} s  orders {frame.done:,}/{frame.orders:,} ({frame.left}) · {numbers} · {frame.trouble}"
    )


def panel(frame: Frame) -> RenderableType:
    """Return a moment as a bar, a grid of numbers and the news."""
    bar = Table.grid(padding=(0, 2))
    bar.add_row(
        ProgressBar(total=max(frame.orders, 1), completed=frame.done, width=_BAR_WIDTH),
        f"{frame.done:,}/{frame.orders:,} orders",
        f"[dim]{frame.left}[/]",
    )
    grid = Table.grid(padding=(0, 2))
    cells = [f"[dim]{name}[/] [bold]{number}[/]" for name, number in frame.numbers.items()]
    for first in range(0, len(cells), 5):
        grid.add_row(*cells[first : first + 5])
    return Group(bar, "", grid, frame.trouble, *(f"[yellow]{sentence}[/]" for sentence in frame.news))
