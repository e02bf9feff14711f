"""The faults of a demo: one after the other, each told of, and each with the time in which it could be felt."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from redis import Redis

from db.settings import settings
from demo import audit, faults, ledger
from demo.faults import TRACES_SECONDS, Fault, Faults, _emptied, of
from demo.processes import Crew
from stack import Stack

if TYPE_CHECKING:
    from pathlib import Path

    from demo.faults import Steps

pytestmark = pytest.mark.usefixtures("environ")


def fault(name: str, share: float, waiting: list[bool]) -> Fault:
    """A fault that waits for as long as the list says so."""

    def steps() -> Steps:
        yield f"{name} began"
        while waiting[0]:
            yield None
        yield f"{name} is over"
        return time.monotonic() + TRACES_SECONDS

    return Fault(name, share, steps)


def test_a_fault_waits_for_its_moment_and_for_the_one_before() -> None:
    waiting = [True]
    wrong = Faults([fault("first", 0.2, waiting), fault("second", 0.4, [False])])

    wrong.step(0.1)
    before = (wrong.count, wrong.now, wrong.news)
    wrong.step(0.5)
    wrong.step(0.5)
    during = (wrong.count, wrong.now, wrong.news, wrong.over)
    waiting[0] = False
    wrong.step(0.5)
    wrong.step(0.5)

    assert before == (0, "", ())
    assert during == (1, "first", ("first began",), False)
    assert wrong.news == ("first began", "first is over", "second began", "second is over")
    assert (wrong.count, wrong.total, wrong.now, wrong.over) == (2, 2, "", True)


def test_the_window_of_a_fault_is_by_the_databases_clock_and_ends_with_its_traces() -> None:
    before = audit.now()
    wrong = Faults([fault("only", 0, [False])])
    wrong.step(1)
    after = audit.now()
    ((begins, ends),) = wrong.windows

    # The two clocks are read one after the other, which takes a moment.
    moment = timedelta(seconds=1)
    assert before - moment <= begins <= after + moment
    assert ends - begins == pytest.approx(timedelta(seconds=TRACES_SECONDS), abs=moment)


@pytest.mark.parametrize(("owned", "count"), [(True, 5), (False, 4)])
def test_postgresql_is_restarted_only_when_it_is_the_demos_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owned: bool, count: int
) -> None:
    monkeypatch.setattr(Stack, "owned", owned)

    names = [each.name for each in of(Crew("harbor_demo", tmp_path), Stack({}))]

    assert len(names) == count
    assert ("PostgreSQL restarts" in names) == owned


def test_on_a_server_that_others_use_the_brokers_database_alone_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = f"{settings().broker_url.get_secret_value().rpartition('/')[0]}/14"
    others = f"{ours.rpartition('/')[0]}/15"
    ledger.prepare()
    monkeypatch.setattr(faults, "BUSY_SECONDS", 0)
    monkeypatch.setenv("HARBOR_BROKER_URL", ours)
    settings.cache_clear()
    with Redis.from_url(ours) as broker, Redis.from_url(others) as other:
        broker.set("message", 1)
        other.set("theirs", 1, ex=60)

        news = list(_emptied(shared=True))

        assert len(news) == 1
        assert str(news[0]).startswith("Redis was emptied by FLUSHDB of the broker's database")
        assert (broker.dbsize(), other.exists("theirs")) == (0, 1)
        other.delete("theirs")
