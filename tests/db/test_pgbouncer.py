"""Behind PgBouncer in transaction mode, where a connection is somebody else's after COMMIT, every promise holds."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from itertools import cycle, islice
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError

from db import engine
from db.session import snapshot, transaction
from tests.conftest import str_url
from tests.db.holds import broken, confirmed, released, reserved, swept
from tests.db.pgbouncer import pgbouncer
from tests.db.sql import change, locked, make_due, rows, value
from tests.factories import make_variant, stock_of
from tests.processes import program, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    Begin = Callable[[], AbstractContextManager[Session | Connection]]

LIMITS = {
    "statement_timeout": "30s",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "1min",
    "TimeZone": "UTC",
}
OF_THE_SERVER = dict.fromkeys(LIMITS, "0") | {"TimeZone": "Asia/Tokyo"}


@pytest.fixture
def through(
    shared: dict[str, str], restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """Lets this process and its children reach the database through a PgBouncer only, and returns that URL.

    The database itself sets no limits and is in Tokyo.
    """
    direct = make_url(shared["HARBOR_DATABASE_URL"])
    change(f"ALTER DATABASE {direct.database} SET timezone = 'Asia/Tokyo'")
    with ExitStack() as started:

        def go(*, pooler: str = "transaction", connections: int = 1, **settings: str) -> str:
            url = str_url(started.enter_context(pgbouncer(direct, connections=connections, **settings)))
            monkeypatch.setenv("HARBOR_DATABASE_URL", url)
            monkeypatch.setenv("HARBOR_DATABASE_POOLER", pooler)
            restart()
            return url

        yield go
        monkeypatch.setenv("HARBOR_DATABASE_URL", str_url(direct))
        monkeypatch.delenv("HARBOR_DATABASE_POOLER", raising=False)
        restart()
    change(f"ALTER DATABASE {direct.database} RESET timezone")


@pytest.fixture
def other(through: Callable[..., str]) -> Iterator[psycopg.Connection]:
    """Another program's connection through the same PgBouncer, which lends both the only connection that it has."""
    url = make_url(through(connections=1)).set(drivername="postgresql")
    with psycopg.connect(str_url(url), autocommit=True, prepare_threshold=None, application_name="other") as connection:
        yield connection


def shown_in(session: Session | Connection) -> dict[str, str]:
    return {name: session.execute(text(f"SHOW {name}")).scalar_one() for name in LIMITS}


def shown_to(connection: psycopg.Connection) -> dict[str, str]:
    return {name: str(connection.execute(f"SHOW {name}".encode()).fetchone()[0]) for name in LIMITS}  # type: ignore[index]


def repeat_on_two_clients() -> None:
    """Send a statement more often than psycopg does before it prepares it, on two connections in turn."""
    with engine.engine().connect() as one, engine.engine().connect() as two:
        for connection in (one, two):
            for _ in range(10):
                connection.execute(text("SELECT CAST(:number AS int)"), {"number": 1})
                connection.commit()


# ---- the promises ----------------------------------------------------------------------------------------------------


def test_threads_that_share_two_connections_keep_the_books_clean(
    through: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clients, orders = 8, 20
    monkeypatch.setenv("HARBOR_DATABASE_CONCURRENCY", str(clients))
    through(connections=2)
    variants = [make_variant(stock=1_000) for _ in range(3)]

    def shop(client: int) -> set[int]:
        lent = set()
        for number, ending in enumerate(islice(cycle(["confirmed", "released", "expired", "held"]), orders)):
            hold = reserved(f"order-{client}-{number}", {variants[client % 3]: 1, variants[number % 3]: 2})
            if ending == "confirmed":
                confirmed(hold.id, f"payment-{hold.id}")
            elif ending == "released":
                released(hold.id)
            elif ending == "expired":
                make_due(hold.id)
                swept()
            lent.add(value("SELECT pg_backend_pid()"))
        return lent

    with ThreadPoolExecutor(clients) as threads:
        lent = set.union(*threads.map(shop, range(clients)))
    swept()

    assert len(lent) == 2
    states = dict(rows("SELECT state, count(*) FROM stock_reservations GROUP BY state"))
    assert states == dict.fromkeys(("confirmed", "released", "expired", "held"), clients * orders // 4)
    assert broken() == []


@pytest.mark.parametrize("edge", [transaction, snapshot, lambda: engine.engine().begin()])
def test_each_transaction_has_its_limits(through: Callable[..., str], edge: Begin) -> None:
    through()

    for _ in range(2):
        with edge() as session:
            assert shown_in(session) == LIMITS


def test_the_limits_end_with_the_transaction(other: psycopg.Connection) -> None:
    with transaction() as session:
        lent = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        assert shown_in(session) == LIMITS

    assert other.execute("SELECT pg_backend_pid()").fetchone() == (lent,)
    assert shown_to(other) == OF_THE_SERVER


def test_a_locked_row_is_not_waited_for_longer_than_told(
    through: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARBOR_LOCK_TIMEOUT_MS", "20")
    through(connections=2)
    make_variant(stock=5)

    with locked("SELECT FROM variants FOR UPDATE"), pytest.raises(OperationalError, match="lock timeout"):
        change("UPDATE variants SET stock_qty = 0")


def test_a_statement_that_takes_too_long_is_ended(through: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_STATEMENT_TIMEOUT_MS", "20")
    through()

    with pytest.raises(OperationalError, match="statement timeout"):
        value("SELECT pg_sleep(20)")

    assert value("SELECT 1") == 1


def test_each_client_shows_under_its_own_name_on_the_connection_they_share(other: psycopg.Connection) -> None:
    name = "SELECT application_name FROM pg_stat_activity WHERE pid = pg_backend_pid()"

    seen = [value(name), other.execute(name.encode()).fetchone(), value(name)]

    assert seen == ["harbor", ("other",), "harbor"]


def test_times_are_read_in_utc(through: Callable[..., str]) -> None:
    through()

    assert value("SELECT now()").utcoffset() == timedelta(0)


def test_a_snapshot_sees_one_moment(through: Callable[..., str]) -> None:
    through(connections=2)
    variant_id = make_variant(stock=5)
    stock = text("SELECT stock_qty FROM variants")
    with snapshot() as session:
        before = session.execute(stock).scalar_one()
        change("UPDATE variants SET stock_qty = 6")
        after = session.execute(stock).scalar_one()

    assert (before, after, stock_of(variant_id)) == (5, 5, 6)


def test_a_snapshot_leaves_the_connection_as_it_was(other: psycopg.Connection) -> None:
    shown = text("SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')")

    with snapshot() as session:
        assert tuple(session.execute(shown).one()) == ("repeatable read", "on")

    assert other.execute(shown.text.encode()).fetchone() == ("read committed", "off")


def test_statements_may_repeat_on_connections_that_are_lent(through: Callable[..., str]) -> None:
    through()

    repeat_on_two_clients()


def test_a_command_of_harbor_works(through: Callable[..., str]) -> None:
    through()
    hold = reserved("order-1", {make_variant(stock=5): 2})

    answer = run([program("harbor"), "reservations", "list", "--json"], os.environ)

    assert answer.returncode == 0, answer.stderr
    assert [told["id"] for told in json.loads(answer.stdout)] == [hold.id]


# ---- without HARBOR_DATABASE_POOLER ----------------------------------------------------------------------------------


def test_without_the_setting_pgbouncer_refuses_the_connection(through: Callable[..., str]) -> None:
    through(pooler="none")

    with pytest.raises(OperationalError, match="unsupported startup parameter"):
        value("SELECT 1")


def test_without_the_setting_a_pgbouncer_that_ignores_limits_leaves_none(through: Callable[..., str]) -> None:
    through(pooler="none", ignore_startup_parameters="options")

    with transaction() as session:
        assert shown_in(session) == OF_THE_SERVER


def test_without_the_setting_a_prepared_statement_meets_another_clients(through: Callable[..., str]) -> None:
    through(pooler="none", ignore_startup_parameters="options")

    with pytest.raises(ProgrammingError) as met:
        repeat_on_two_clients()

    assert isinstance(met.value.orig, psycopg.errors.DuplicatePreparedStatement)
