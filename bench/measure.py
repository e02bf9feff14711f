"""How a number is made: warm sides take turns, the median of the rounds counts, and a wrong side has no number.

Promise: a result is made of rounds in which every check passed; one that failed leaves no number behind.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_Size = TypeVar("_Size")


class CheckFailedError(Exception):
    """A side did its work wrong, so its time means nothing."""


def check(problem: str, *, right: bool) -> None:
    """Refuse to go on unless `right`.

    Raises:
        CheckFailedError: with `problem`.
    """
    if not right:
        raise CheckFailedError(problem)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a key means and when it is good enough: at least `target` when more is better, else at most `target`."""

    key: str
    what: str
    target: float
    unit: Literal["ratio", "ms", "MB", "%"] = "ratio"
    better: Literal["more", "less"] = "more"

    def met_by(self, value: float) -> bool:
        """Return whether `value`, in this goal's unit, is good enough."""
        return value >= self.target if self.better == "more" else value <= self.target

    def shown(self, value: float) -> str:
        """Return a value as people read it, such as `1.38 ms`."""
        return f"{value:.3g}" if self.unit == "ratio" else f"{value:.3g} {self.unit}"

    @property
    def wanted(self) -> str:
        """Return the target as people read it, such as `≤ 5 ms`."""
        return f"{'≥' if self.better == 'more' else '≤'} {self.shown(self.target)}"


@dataclass(frozen=True, slots=True)
class Result:
    """One key as measured.

    Attributes:
        goal: what was measured.
        rounds: one number per round, in the goal's unit.
        note: the absolute numbers behind it, in a few words for the table.
        extra: the same and more for the JSON file; the names carry their unit.
        also_met: False when something that the goal asks for besides its value was missed.
    """

    goal: Goal
    rounds: Sequence[float]
    note: str = ""
    extra: Mapping[str, float] = field(default_factory=dict)
    also_met: bool = True

    @property
    def value(self) -> float:
        """Return the median of the rounds."""
        return median(self.rounds)

    @property
    def met(self) -> bool:
        """Return whether the goal is met in full."""
        return self.also_met and self.goal.met_by(self.value)

    def as_json(self) -> dict[str, Any]:
        """Return the result as the JSON file has it."""
        return {
            "value": rounded(self.value),
            "target": self.goal.target,
            "met": self.met,
            "unit": self.goal.unit,
            "better": self.goal.better,
            "what": self.goal.what,
            "rounds": [rounded(number) for number in self.rounds],
            "spread": {"min": rounded(min(self.rounds)), "max": rounded(max(self.rounds))},
            **{name: rounded(number) for name, number in self.extra.items()},
        }


@dataclass(frozen=True, slots=True)
class Measurement(Generic[_Size]):
    """Goals that are measured together, and what measures them: `run` returns a result for each, in this order."""

    goals: tuple[Goal, ...]
    run: Callable[[_Size], list[Result]]


def take_turns(
    sides: Mapping[str, Callable[[], float]], *, rounds: int, warm_ups: int = 0, unit: str
) -> dict[str, list[float]]:
    """Run the sides one after the other, `rounds` times after `warm_ups` that do not count; return each side's numbers.

    Turn by turn, because a machine that slows down halfway then slows both. Each round is told to stderr in `unit`.
    """
    numbers: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(1 - warm_ups, rounds + 1):
        told = []
        for name, side in sides.items():
            number = side()
            told.append(f"{name} {number:,.0f} {unit}")
            if turn > 0:
                numbers[name].append(number)
        print(f"  {f'round {turn}' if turn > 0 else 'warm-up'}: {', '.join(told)}", file=sys.stderr, flush=True)
    return numbers


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours ÷ theirs, round by round, so that only numbers taken next to each other are compared."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def rounded(number: float) -> float:
    """Return four significant digits: more would claim a precision that no round has."""
    return float(f"{number:.4g}")
