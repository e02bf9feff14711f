"""What a person sees of the demo, on a terminal and off it."""

from __future__ import annotations

import io
from collections import Counter

import pytest
from rich.console import Console
from rich.text import Text

from demo.audit import Pulse
from demo.view import Frame, View

KILLED, BACK = "the expiry worker was killed", "the expiry worker is back"


def shown(*frames: Frame, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100)
    with View(console) as view:
        for frame in frames:
            view.show(frame)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def frame(*news: str, seconds: float = 12.0) -> Frame:
    return Frame(seconds, seconds - 10, 10, Counter(orders=5), news=news)


def test_off_a_terminal_news_are_told_at_once_and_once() -> None:
    lines = shown(frame(), frame(KILLED), frame(KILLED), frame(KILLED, BACK, seconds=14.0)).splitlines()

    # The numbers would come again after five seconds.
    assert lines[1:] == [f" 12.0 s  {KILLED}", f" 14.0 s  {BACK}"]


@pytest.mark.parametrize("news", [(KILLED,), (KILLED, BACK)])
def test_on_a_terminal_news_stay_in_the_panel(news: tuple[str, ...]) -> None:
    picture = shown(frame(), frame(*news), terminal=True)

    assert all(sentence in picture for sentence in news)


@pytest.mark.parametrize("terminal", [True, False])
def test_jobs_ticks_and_what_is_wrong_are_shown(terminal: bool) -> None:
    pulse = Pulse(jobs_done=1_234, jobs_waiting=56, ticks=78)
    moment = Frame(12, 2, 10, Counter(orders=5), pulse, faults=(2, 5), fault="relay 1 is dead")

    picture = Text.from_ansi(shown(moment, terminal=terminal)).plain

    assert all(
        told in picture for told in ("jobs done 1,234", "waiting 56", "ticks 78", "faults 2 of 5, now relay 1 is dead")
    )


def test_lines_tell_the_time_of_the_whole_demo_and_the_rest_by_that_of_the_shoppers() -> None:
    assert shown(frame()).startswith(" 12.0 s  orders 5/10 (2 s left)")
