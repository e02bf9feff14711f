"""A shop with a past, loaded in seconds: many holds that ended, some that are held, and a few of those due.

It is for asking how rows are found, and has no movements: its units are from nowhere.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url

from db import engine
from db.settings import settings
from tests.conftest import str_url

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class History:
    """How much has happened. Ids go from 1 on, as they do in a new database: the last `held` of the holds are open.

    Variants from 1 to `sold` have lines. The first one is the hot one: every `hot_each`-th hold is of it.
    """

    variants: int
    sold: int
    holds: int
    held: int
    due: int
    hot_each: int

    @property
    def newest(self) -> int:
        """The id of the hold that lasts longest."""
        return self.holds

    @property
    def oldest_due(self) -> int:
        """The id of the hold that has been due for longest."""
        return self.holds - self.held + 1


_STEPS = (
    """INSERT INTO products (sku, name, price_cents)
       SELECT 'HBR-' || number, 'Product', 900 FROM generate_series(1, :variants / 10) AS number""",
    """INSERT INTO variants (product_id, sku, stock_qty)
       SELECT 1 + number / 10, 'HBR-' || number || '-M', 1000 FROM generate_series(0, :variants - 1) AS number""",
    # Of ten that ended seven were paid. The due ones come first among the held, each a millisecond older than the next.
    """INSERT INTO stock_reservations
              (order_id, request_hash, created_at, expires_at, max_expires_at, resolved_at, state, payment_ref)
       SELECT 'order-' || number, '', ends - interval '15 minutes', ends, ends + interval '1 hour',
              CASE WHEN state <> 'held' THEN ends END, state,
              CASE WHEN state = 'confirmed' THEN 'payment-' || number END
         FROM generate_series(1, :holds) AS number, LATERAL (
           SELECT CASE WHEN number > :holds - :held THEN 'held' WHEN number % 10 < 7 THEN 'confirmed'
                       WHEN number % 2 = 0 THEN 'released' ELSE 'expired' END AS state,
                  statement_timestamp() + number * interval '1 ms'
                  + CASE WHEN number > :holds - :held + :due THEN interval '1 hour' ELSE interval '-1 hour' END AS ends
         ) AS ended""",
    """INSERT INTO stock_reservation_lines (reservation_id, variant_id, qty)
       SELECT id, CASE WHEN line = 0 AND id % :hot_each = 0 THEN 1
                       ELSE 2 + (id * 7919 + line * 997) % (:sold - 1) END, 1 + id % 3
         FROM stock_reservations, generate_series(0, 1) AS line WHERE line = 0 OR id % 2 = 0""",
    """INSERT INTO required_refunds (payment_ref, reservation_id, order_id, reason, variant_ids)
       SELECT 'late-' || id, id, order_id, 'sold_out', '{1}' FROM stock_reservations WHERE state = 'released'""",
)


@contextmanager
def loaded(history: History, servers: dict[str, str], template: str) -> Iterator[History]:
    """Have a database with this history as this process's own, vacuumed and analyzed."""
    url = make_url(servers["HARBOR_DATABASE_URL"])
    name = f"harbor_history_{uuid4().hex[:8]}"
    with (
        psycopg.connect(str_url(url.set(drivername="postgresql")), autocommit=True) as server,
        pytest.MonkeyPatch.context() as patch,
    ):
        _ask_for_plans(server)
        server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        for variable, told in {**servers, "HARBOR_DATABASE_URL": str_url(url.set(database=name))}.items():
            patch.setenv(variable, told)
        _begin_anew()
        _load(history)
        yield history
        _begin_anew()
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    settings.cache_clear()


def _ask_for_plans(server: psycopg.Connection) -> None:
    """Skip the test on a server that has no auto_explain, or does not let this role load it."""
    try:
        server.execute("LOAD 'auto_explain'")
    except psycopg.Error as error:
        pytest.skip(f"the server does not tell plans: {error}")


def _begin_anew() -> None:
    engine.dispose()
    settings.cache_clear()


def _load(history: History) -> None:
    with engine.engine().begin() as connection:
        # One check of a foreign key per row takes three times as long as the rows do.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for step in _STEPS:
            connection.execute(text(step), vars(history))
    with engine.engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))
