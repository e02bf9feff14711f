"""What a process waits for connections is counted, and told when it is long."""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from db import engine
from db.settings import settings
from tests.processes import python, run

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("database")


@pytest.fixture(autouse=True)
def two_connections(restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has a pool of two connections, and waits for one for 20 ms at most."""
    monkeypatch.setenv("HARBOR_DATABASE_CONCURRENCY", "1")
    monkeypatch.setenv("HARBOR_POOL_TIMEOUT_MS", "20")
    monkeypatch.setenv("HARBOR_SLOW_QUERY_MS", "3600000")
    restart()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which each checkout takes a quarter of a second."""
    ticks = count()
    monkeypatch.setattr("db.pool.time", SimpleNamespace(perf_counter=lambda: next(ticks) * 0.25))


def check_out(times: int = 1) -> None:
    for _ in range(times):
        engine.engine().connect().close()


def fail_to_check_out() -> None:
    with ExitStack() as taken:
        for _ in range(3):
            taken.enter_context(engine.engine().connect())
        with pytest.raises(PoolTimeoutError):
            engine.engine().connect()


def test_a_pool_that_nobody_has_used_has_counted_nothing() -> None:
    counted = engine.pool_counters()

    assert (counted.checkouts, counted.waited_ms, counted.worst_wait_ms, counted.timeouts) == (0, 0, 0, 0)
    assert (counted.checked_out, counted.overflow) == (0, 0)


def test_connections_that_are_out_are_seen() -> None:
    with engine.engine().connect():
        inside = engine.pool_counters().checked_out

    assert (inside, engine.pool_counters().checked_out) == (1, 0)


def test_waits_are_added_up_and_the_worst_is_kept(clock: None) -> None:
    check_out(4)

    counted = engine.pool_counters()
    # The first of them made the connection.
    assert (counted.checkouts, counted.waited_ms, counted.worst_wait_ms) == (4, 750, 250)


def test_to_make_a_connection_is_not_to_wait_for_one(clock: None) -> None:
    with engine.engine().connect(), engine.engine().connect():
        counted = engine.pool_counters()

    assert (counted.checkouts, counted.waited_ms) == (2, 0)


def test_a_checkout_that_waited_long_is_told_with_the_counters(
    clock: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HARBOR_SLOW_QUERY_MS", "249")
    settings.cache_clear()

    check_out(2)

    [line] = [line for line in caplog.messages if line.startswith("pool.")]
    assert line.startswith("pool.slow_checkout milliseconds=")
    assert line.endswith("checkouts=2 waited_ms=250.0 worst_wait_ms=250.0 timeouts=0 checked_out=1 overflow=0")


def test_a_checkout_that_waited_no_longer_than_told_is_not(
    clock: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HARBOR_SLOW_QUERY_MS", "250")
    settings.cache_clear()

    check_out(2)

    assert caplog.messages == []


def test_a_checkout_that_gave_up_is_counted_and_told(caplog: pytest.LogCaptureFixture) -> None:
    fail_to_check_out()

    counted = engine.pool_counters()
    assert (counted.checkouts, counted.timeouts, counted.checked_out) == (3, 1, 0)
    [line] = caplog.messages
    assert line.startswith("pool.timeout milliseconds=")
    assert float(line.split()[1].partition("=")[2]) >= 20
    assert line.endswith("timeouts=1 checked_out=3 overflow=0")


FORK = """
import dataclasses, json, os, types
from db import engine

if not {guarded}:
    engine.os = types.SimpleNamespace(getpid=lambda: 1)

engine.engine().connect().close()
child = os.fork()
if child == 0:
    print(json.dumps(dataclasses.asdict(engine.pool_counters())), flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(("guarded", "checkouts"), [(True, 0), (False, 1)])
def test_a_forked_child_counts_from_zero(guarded: bool, checkouts: int) -> None:
    answer = run(python("-c", FORK.format(guarded=guarded)), os.environ)

    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["checkouts"] == checkouts
