"""How a number is made: the sides take turns, both are warm, the median of the rounds counts, and a wrong side has none.

Promise: no result exists without at least five rounds (one in a quick run) in which every check passed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


class CheckFailedError(Exception):
    """A side did its work wrong, so its time means nothing."""


def check(right: bool, problem: str) -> None:
    """Refuse to go on when `right` is False.

    Raises:
        CheckFailedError: with `problem`.
    """
    if not right:
        raise CheckFailedError(problem)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a key means and when it is good enough: a ratio is at least `target`, milliseconds are at most `target`."""

    key: str
    what: str
    unit: Literal["ratio", "ms"]
    target: float

    def met(self, value: float) -> bool:
        """Return whether `value`, in this goal's unit, is good enough."""
        return value >= self.target if self.unit == "ratio" else value <= self.target


@dataclass(frozen=True, slots=True)
class Result:
    """One key as measured: `rounds` in the goal's unit, and `extra` fields such as absolute rates."""

    goal: Goal
    rounds: Sequence[float]
    extra: Mapping[str, Any] = field(default_factory=dict)
    also_met: bool = True

    @property
    def value(self) -> float:
        """Return the median of the rounds."""
        return median(self.rounds)

    @property
    def met(self) -> bool:
        """Return whether the goal, and what else the measurement asks for, is met."""
        return self.also_met and self.goal.met(self.value)

    def as_json(self) -> dict[str, Any]:
        """Return the result as the JSON file has it."""
        return {
            "value": _short(self.value),
            "target": self.goal.target,
            "met": self.met,
            "unit": self.goal.unit,
            "what": self.goal.what,
            "rounds": [_short(number) for number in self.rounds],
            "spread": {"min": _short(min(self.rounds)), "max": _short(max(self.rounds))},
            **{name: _short(number) for name, number in self.extra.items()},
        }


def take_turns(
    sides: Mapping[str, Callable[[], float]], *, rounds: int, warm_ups: int = 1
) -> dict[str, list[float]]:
    """Run the sides one after the other, `rounds` times after `warm_ups` that do not count; return each side's numbers.

    Turn by turn and not side by side: a machine that slows down halfway slows both.
    """
    numbers: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warm_ups + rounds):
        for name, side in sides.items():
            number = side()
            if turn >= warm_ups:
                numbers[name].append(number)
    return numbers


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Return ours ÷ theirs, round by round, so that only numbers taken next to each other are compared."""
    return [our / their for our, their in zip(ours, theirs, strict=True)]


def _short(number: Any) -> Any:
    """Return four significant digits of a float: more would claim a precision that no round has."""
    return float(f"{number:.4g}") if isinstance(number, float) else number
