"""One engine per process, with as many connections as it can use, and limits on how long anything may take."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import QueuePool

from db import engine
from db.settings import settings
from tests.db.sql import change, eventually, locked, value
from tests.factories import make_variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

pytestmark = pytest.mark.usefixtures("database")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def role(restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test say what this process is; afterwards it is what it was."""
    monkeypatch.setattr(engine, "_role", engine._role)


def shown(name: str) -> str:
    return str(value(f"SHOW {name}"))


def backend(connection: Connection) -> int:
    return int(connection.execute(text("SELECT pg_backend_pid()")).scalar_one())


def pool() -> QueuePool:
    found = engine.engine().pool
    assert isinstance(found, QueuePool)
    return found


# ---- what the server is told -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("statement_timeout", "30s"),
        ("lock_timeout", "5s"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("TimeZone", "UTC"),
        ("application_name", "harbor"),
    ],
)
def test_the_server_is_told_the_limits_and_who_asks(name: str, told: str) -> None:
    assert shown(name) == told


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("HARBOR_STATEMENT_TIMEOUT_MS", "statement_timeout"),
        ("HARBOR_LOCK_TIMEOUT_MS", "lock_timeout"),
        ("HARBOR_IDLE_IN_TRANSACTION_TIMEOUT_MS", "idle_in_transaction_session_timeout"),
    ],
)
def test_the_environment_can_say_other_limits(
    restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch, variable: str, name: str
) -> None:
    monkeypatch.setenv(variable, "1234")
    restart()

    assert shown(name) == "1234ms"


def test_a_process_shows_under_the_name_it_has_given_itself(role: None) -> None:
    engine.configure(application_name="harbor-worker-expiry", concurrency=1)

    seen = value("SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()")

    assert seen == "harbor-worker-expiry"


def test_a_statement_that_takes_too_long_is_ended(restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_STATEMENT_TIMEOUT_MS", "20")
    restart()

    with pytest.raises(OperationalError, match="statement timeout"):
        value("SELECT pg_sleep(20)")


def test_a_lock_that_takes_too_long_is_not_waited_for(
    restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_variant(stock=5)
    monkeypatch.setenv("HARBOR_LOCK_TIMEOUT_MS", "20")
    restart()

    with locked("SELECT FROM variants FOR UPDATE"), pytest.raises(OperationalError, match="lock timeout"):
        change("UPDATE variants SET stock_qty = 0")


# ---- the pool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_process_has_a_connection_for_each_of_its_threads_and_two_more(role: None, concurrency: int) -> None:
    engine.configure(application_name="harbor", concurrency=concurrency)

    assert pool().size() == concurrency + 2


def test_a_process_that_was_told_nothing_has_as_many_as_the_settings_say(
    restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARBOR_DATABASE_CONCURRENCY", "3")
    restart()

    assert pool().size() == 5


def test_no_connection_is_made_beyond_the_pool(role: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_POOL_TIMEOUT_MS", "20")
    settings.cache_clear()
    engine.configure(application_name="harbor", concurrency=1)

    with ExitStack() as open_connections:
        for _ in range(3):
            open_connections.enter_context(engine.engine().connect())
        with pytest.raises(PoolTimeoutError):
            engine.engine().connect()
        taken = pool().checkedout()

    assert taken == 3


def test_a_connection_that_died_in_the_pool_is_replaced_unseen(role: None) -> None:
    engine.configure(application_name="harbor", concurrency=1)
    with engine.engine().connect() as killer:
        with engine.engine().connect() as connection:
            victim = backend(connection)
        killer.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": victim})

        with engine.engine().connect() as connection:
            replacement = backend(connection)

    assert replacement != victim


def test_disposing_closes_the_connections(role: None) -> None:
    connections = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'harbor-disposing'"
    engine.configure(application_name="harbor-disposing", concurrency=1)
    with engine.engine().connect() as one, engine.engine().connect() as two:
        assert backend(one) != backend(two)

    engine.dispose()
    engine.configure(application_name="harbor", concurrency=1)

    eventually(lambda: value(connections) == 0)


# ---- one per process -------------------------------------------------------------------------------------------------


def test_a_process_has_one_engine() -> None:
    assert engine.engine() is engine.engine()


def test_threads_that_ask_first_at_the_same_moment_get_one_engine(restart: Callable[[], None]) -> None:
    every_thread = 8
    together = Barrier(every_thread)
    interval = sys.getswitchinterval()

    def ask() -> int:
        together.wait()
        return id(engine.engine())

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(every_thread) as threads:
            for _ in range(10):
                restart()
                seen = {thread.result() for thread in [threads.submit(ask) for _ in range(every_thread)]}
                assert len(seen) == 1
    finally:
        sys.setswitchinterval(interval)


FORK = """
import json, os, types
from sqlalchemy import text
from db import engine

if not {guarded}:
    engine.os = types.SimpleNamespace(getpid=lambda: 1)

def backend():
    with engine.engine().connect() as connection:
        return connection.execute(text("SELECT pg_backend_pid()")).scalar_one()

mine = engine.engine()
before = backend()
read, write = os.pipe()
child = os.fork()
if child == 0:
    answer = dict(same_engine=engine.engine() is mine, backend=backend(), again=backend())
    engine.dispose()
    os.write(write, json.dumps(answer).encode())
    os._exit(0)
os.waitpid(child, 0)
of_child = json.loads(os.read(read, 10_000))
print(json.dumps(dict(before=before, after=backend() if {guarded} else None, child=of_child)))
"""


def forked(*, guarded: bool) -> dict[str, object]:
    """What a process and the child it forks see of their connections."""
    script = FORK.format(guarded=guarded)
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    answer: dict[str, object] = json.loads(ended.stdout)
    return answer


def test_a_forked_child_has_an_engine_and_connections_of_its_own() -> None:
    seen = forked(guarded=True)

    child = seen["child"]
    assert isinstance(child, dict)
    assert not child["same_engine"]
    assert child["backend"] == child["again"] != seen["before"]
    assert seen["after"] == seen["before"]


def test_without_the_guard_a_forked_child_talks_through_its_parents_connection() -> None:
    seen = forked(guarded=False)

    child = seen["child"]
    assert isinstance(child, dict)
    assert child["same_engine"]
    assert child["backend"] == seen["before"]


# ---- what an error says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sku", "price_cents", "named"),
    [("secret-sku", 900, "uq_products_sku"), ("other", -776_655, "ck_products_price_not_negative")],
)
def test_an_error_names_the_rule_and_no_value(sku: str, price_cents: int, named: str) -> None:
    insert = "INSERT INTO products (sku, name, price_cents) VALUES (:sku, 'secret-name', :price_cents)"
    change(insert, sku="secret-sku", price_cents=900)

    with pytest.raises(IntegrityError) as refused:
        change(insert, sku=sku, price_cents=price_cents)

    for text_of in (str(refused.value), repr(refused.value), str(refused.value.orig), repr(refused.value.__cause__)):
        assert "secret-sku" not in text_of
        assert "776655" not in text_of
    assert named in str(refused.value)
