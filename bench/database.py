"""A database of the bench's own, made by the migrations and dropped at the end, and the stock it starts each round with.

Promise: what is loaded here obeys the invariant that `inventory.reconcile` proves, and both sides start from the same.
"""

from __future__ import annotations

import io
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import make_url

import stack
from bench.measure import check
from db import engine, inventory
from db.session import transaction
from db.settings import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL


@contextmanager
def fresh() -> Iterator[None]:
    """Point this process and its children to a new, migrated database; drop it when the block ends.

    The servers are those of the environment, or embedded ones for the length of the block.
    """
    with stack.running() as servers:
        url = make_url(servers.environ["HARBOR_DATABASE_URL"])
        name = f"harbor_bench_{uuid4().hex[:8]}"
        _administer(url, f'CREATE DATABASE "{name}"')
        before = dict(os.environ)
        try:
            _use({**servers.environ, "HARBOR_DATABASE_URL": _with_password(url.set(database=name))})
            command.upgrade(Config(toml_file="pyproject.toml", stdout=io.StringIO()), "head")
            yield
        finally:
            os.environ.clear()
            _use(before)
            _administer(url, f'DROP DATABASE "{name}" WITH (FORCE)')


def _use(environ: dict[str, str]) -> None:
    os.environ.update(environ)
    settings.cache_clear()
    engine.dispose()


def _administer(url: URL, statement: str) -> None:
    """Run a statement that no transaction may hold."""
    with psycopg.connect(_with_password(url.set(drivername="postgresql")), autocommit=True) as connection:
        connection.execute(statement.encode())


def _with_password(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def vacuum() -> None:
    """Vacuum and analyze everything, as autovacuum would have by the time a real shop is this full."""
    _administer(make_url(settings().database_url.get_secret_value()), "VACUUM (ANALYZE)")


def stock(variants: int, units: int) -> list[int]:
    """Start anew with `variants` variants of `units` units each, and return their ids, ascending."""
    with transaction() as session:
        session.execute(
            text("TRUNCATE products, variants, stock_reservations, stock_reservation_lines, stock_movements")
        )
        ids = list(
            session.execute(
                text("""
WITH product AS (INSERT INTO products (sku, name, price_cents) VALUES ('BENCH', 'Bench', 900) RETURNING id),
made AS (
  INSERT INTO variants (product_id, sku, stock_qty)
  SELECT id, 'BENCH-' || number, :units FROM product, generate_series(1, :variants) AS number
  RETURNING id),
moved AS (INSERT INTO stock_movements (variant_id, kind, qty) SELECT id, 'receive', :units FROM made)
SELECT id FROM made ORDER BY id"""),
                {"variants": variants, "units": units},
            ).scalars()
        )
    vacuum()
    return ids


def check_units(side: str, *, held_orders: int, held_units: int) -> None:
    """Check that exactly these orders hold exactly these units and that no variant's units fail to add up.

    Raises:
        CheckFailedError: they do not.
    """
    with transaction() as session:
        orders, units = session.execute(
            text("""
SELECT count(DISTINCT r.id), coalesce(sum(l.qty - l.released_qty), 0)
  FROM stock_reservations r JOIN stock_reservation_lines l ON l.reservation_id = r.id WHERE r.state = 'held'""")
        ).one()
    check(orders == held_orders, f"{side}: {held_orders} orders were told they have a hold, {orders} have one")
    check(units == held_units, f"{side}: {held_units} units were promised, {units} are held")
    broken = inventory.reconcile(page=10_000).broken
    check(not broken, f"{side}: the units of {len(broken)} variants do not add up, such as {broken[:1]}")
