"""The edge: all of a block is committed or none of it, and no connection is left out of the pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import InternalError, OperationalError
from sqlalchemy.pool import QueuePool

from db import engine, inventory
from db.errors import SecondTransaction, SettingsError
from db.inventory import Product
from db.session import snapshot, task_scope, transaction
from tests.db.sql import change, value
from tests.factories import make_variant, stock_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from sqlalchemy.orm import Session

pytestmark = pytest.mark.usefixtures("database")

both = pytest.mark.parametrize("edge", [transaction, snapshot])


def checked_out() -> int:
    """How many connections somebody has taken from the pool and not brought back."""
    pool = engine.engine().pool
    assert isinstance(pool, QueuePool)
    return pool.checkedout()


def products() -> int:
    return int(value("SELECT count(*) FROM products"))


def add_product(session: Session) -> None:
    session.add(Product(sku="HBR-MUG", name="Mug", price_cents=900))


def fail(error: BaseException) -> None:
    raise error


# ---- transaction -----------------------------------------------------------------------------------------------------


def test_a_block_that_ends_is_committed() -> None:
    with transaction() as session:
        add_product(session)

    assert products() == 1


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
def test_a_block_that_raises_is_rolled_back_and_the_error_goes_on(error: BaseException) -> None:
    def block() -> None:
        with transaction() as session:
            add_product(session)
            session.flush()
            fail(error)

    with pytest.raises(type(error)) as raised:
        block()

    assert raised.value is error
    assert products() == 0


def test_what_was_loaded_can_be_read_after_the_commit() -> None:
    variant_id = make_variant(stock=5)

    with transaction() as session:
        product = session.get_one(Product, value("SELECT product_id FROM variants WHERE id = :id", id=variant_id))

    assert product.price_cents == 900
    assert checked_out() == 0


@both
def test_a_block_that_ends_leaves_no_connection_out(edge: Callable[[], AbstractContextManager[Session]]) -> None:
    with edge() as session:
        session.execute(text("SELECT 1"))
        inside = checked_out()

    assert (inside, checked_out()) == (1, 0)


@both
@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt()])
def test_a_block_that_raises_leaves_no_connection_out(
    edge: Callable[[], AbstractContextManager[Session]], error: BaseException
) -> None:
    def block() -> None:
        with edge() as session:
            session.execute(text("SELECT 1"))
            fail(error)

    with pytest.raises(type(error)):
        block()

    assert checked_out() == 0


@both
def test_a_connection_that_dies_inside_a_block_is_replaced(edge: Callable[[], AbstractContextManager[Session]]) -> None:
    def block() -> None:
        with edge() as session:
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            change("SELECT pg_terminate_backend(:pid, 5000)", pid=pid)
            session.execute(text("SELECT 1"))

    with pytest.raises(OperationalError):
        block()

    assert checked_out() == 0
    with edge() as session:
        assert session.execute(text("SELECT 1")).scalar_one() == 1


def test_a_commit_that_fails_is_an_error_and_leaves_no_connection_out() -> None:
    def block() -> None:
        with transaction() as session:
            pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
            change("SELECT pg_terminate_backend(:pid, 5000)", pid=pid)

    with pytest.raises(OperationalError):
        block()

    assert checked_out() == 0


def test_without_a_database_url_the_variable_is_named(
    restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HARBOR_DATABASE_URL", "HARBOR_BROKER_URL", "HARBOR_CACHE_URL"):
        monkeypatch.delenv(name)
    restart()

    with pytest.raises(SettingsError, match="HARBOR_DATABASE_URL"), transaction():
        pass


# ---- snapshot --------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_repeatable_read_and_read_only() -> None:
    with snapshot() as session:
        isolation = session.execute(text("SHOW transaction_isolation")).scalar_one()
        read_only = session.execute(text("SHOW transaction_read_only")).scalar_one()

    assert (isolation, read_only) == ("repeatable read", "on")


def test_a_snapshot_refuses_a_write() -> None:
    variant_id = make_variant(stock=5)

    with pytest.raises(InternalError, match="read-only transaction"), snapshot() as session:
        inventory.receive(session, variant_id, 1)

    assert stock_of(variant_id) == 5


def test_a_snapshot_does_not_see_what_is_committed_after_its_first_statement() -> None:
    variant_id = make_variant(stock=5)
    stock = text("SELECT stock_qty FROM variants")

    with snapshot() as session:
        before = session.execute(stock).scalar_one()
        with transaction() as other:
            inventory.receive(other, variant_id, 1)
        after = session.execute(stock).scalar_one()

    assert (before, after, stock_of(variant_id)) == (5, 5, 6)


def test_a_transaction_on_the_connection_of_a_snapshot_is_an_ordinary_one(restart: Callable[[], None]) -> None:
    restart()
    with snapshot() as session:
        of_snapshot = session.execute(text("SELECT pg_backend_pid()")).scalar_one()

    with transaction() as session:
        add_product(session)
        pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
        isolation = session.execute(text("SHOW transaction_isolation")).scalar_one()

    assert (pid, isolation) == (of_snapshot, "read committed")
    assert products() == 1


# ---- tasks -----------------------------------------------------------------------------------------------------------


def test_a_task_has_one_transaction() -> None:
    with task_scope("orders.remind", repeatable=False):
        with transaction() as session:
            add_product(session)
        with pytest.raises(SecondTransaction) as refused, transaction():
            pass

    assert refused.value.ids == {"task": "orders.remind"}
    assert "repeatable=True" in str(refused.value)
    assert (products(), checked_out()) == (1, 0)


def test_a_second_transaction_inside_the_first_is_refused_and_takes_the_first_with_it() -> None:
    def block() -> None:
        with task_scope("orders.remind", repeatable=False), transaction() as session:
            add_product(session)
            with transaction():
                pass

    with pytest.raises(SecondTransaction):
        block()

    assert (products(), checked_out()) == (0, 0)


def test_a_repeatable_task_has_as_many_transactions_as_it_likes() -> None:
    with task_scope("reservations.expire", repeatable=True):
        for _ in range(3):
            with transaction() as session:
                session.execute(text("SELECT 1"))

    assert checked_out() == 0


def test_snapshots_of_a_task_are_not_counted() -> None:
    with task_scope("orders.remind", repeatable=False):
        for _ in range(2):
            with snapshot() as session:
                session.execute(text("SELECT 1"))
        with transaction() as session:
            add_product(session)
        with snapshot() as session:
            seen = session.execute(text("SELECT count(*) FROM products")).scalar_one()

    assert seen == 1


def test_each_run_of_a_task_has_a_transaction_of_its_own() -> None:
    for sku in ("HBR-MUG", "HBR-CUP"):
        with task_scope("orders.remind", repeatable=False), transaction() as session:
            session.add(Product(sku=sku, name="Mug", price_cents=900))

    assert products() == 2


def test_outside_a_task_transactions_are_not_counted() -> None:
    with task_scope("orders.remind", repeatable=False), transaction() as session:
        add_product(session)

    for _ in range(2):
        with transaction() as session:
            session.execute(text("SELECT 1"))
    assert checked_out() == 0
