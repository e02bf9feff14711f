"""The same functions in an async service: `await session.run_sync(reservations.reserve, …)`, on its own engine."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from db import inventory, reservations
from db.errors import InsufficientStock, OrderContended, PaymentRefInUse, VariantNotFound
from db.reservations import Hold, HoldRequest, HoldState, RefundRequired
from db.settings import settings
from tests.concurrency.guards import UNITS_GUARD, drop_the_check, replace_in_reserve
from tests.conftest import str_url
from tests.db.holds import PAYMENT, broken, hold_in, lines_of, many_due, reserved, sales_of, state_of
from tests.db.pgbouncer import pgbouncer
from tests.db.sql import eventually, everything, locked, make_due, rows, somebody_waits_for_a_lock, value
from tests.factories import make_variant, make_variants, stock_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    Sessions = async_sessionmaker[AsyncSession]

pytestmark = pytest.mark.usefixtures("database")

LOCK_THE_VARIANT = "SELECT FROM variants FOR UPDATE"
OTHERS_AT_WORK = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND state <> 'idle' AND pid <> pg_backend_pid()"""
LOCK_THE_HOLD = "SELECT FROM stock_reservations FOR UPDATE"


@asynccontextmanager
async def service(url: str = "", **told: Any) -> AsyncIterator[Sessions]:
    """Have the engine of an async service for the length of the block."""
    url = url or settings().database_url.get_secret_value()
    engine = create_async_engine(url, **{"hide_parameters": True, **told})
    try:
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


async def commit(sessions: Sessions, function: Callable[..., Any], *told: Any, **more: Any) -> Any:
    """Do one thing in a transaction of its own."""
    async with sessions.begin() as session:
        return await session.run_sync(function, *told, **more)


def committed(function: Callable[..., Any], *told: Any, **more: Any) -> Any:
    """Do one thing in a service that does nothing else."""

    async def once() -> Any:
        async with service() as sessions:
            return await commit(sessions, function, *told, **more)

    return asyncio.run(once())


# ---- each function ---------------------------------------------------------------------------------------------------


def test_reserve_holds_units_and_returns_the_same_hold_again() -> None:
    first, second = make_variants(2, stock=5)

    hold = committed(reservations.reserve, "order-1", {second: 2, first: 1}, hold=timedelta(minutes=5))

    assert committed(reservations.reserve, "order-1", {first: 1, second: 2}) == hold
    assert [stock_of(first), stock_of(second)] == [4, 3]


def test_reserve_reclaims_what_is_due() -> None:
    variant_id = make_variant(stock=2)
    due = hold_in("due", "order-1", {variant_id: 2})

    hold = committed(reservations.reserve, "order-2", {variant_id: 2})

    assert (state_of(due), state_of(hold.id)) == ("expired", "held")
    assert broken() == []


@pytest.mark.parametrize(("units", "refused"), [(6, InsufficientStock), (1, VariantNotFound)])
def test_what_is_refused_writes_nothing(units: int, refused: type[Exception]) -> None:
    variant_id = make_variant(stock=5) + (refused is VariantNotFound)
    before = everything()

    with pytest.raises(refused):
        committed(reservations.reserve, "order-1", {variant_id: units})

    assert everything() == before


def test_reserve_many_answers_each_order() -> None:
    variant_id = make_variant(stock=1)
    due = hold_in("due", "order-0", {variant_id: 1})
    wanted = [HoldRequest(f"order-{number}", {variant_id: 1}) for number in range(1, 4)]

    answers = committed(reservations.reserve_many, wanted)

    assert [type(answer) for answer in answers] == [Hold, InsufficientStock, InsufficientStock]
    assert state_of(due) == "expired"


def test_extend_lets_a_hold_last_longer() -> None:
    hold = reserved("order-1", {make_variant(stock=1): 1})

    assert committed(reservations.extend, hold.id, hold=timedelta(hours=1)).expires_at > hold.expires_at


def test_confirm_sells_once() -> None:
    variant_id = make_variant(stock=5)
    hold = reserved("order-1", {variant_id: 2})

    answers = [committed(reservations.confirm, hold.id, PAYMENT) for _ in range(2)]

    assert [answer.state for answer in answers] == [HoldState.CONFIRMED] * 2
    assert sales_of(hold.id) == [(variant_id, -2)]


def test_a_transaction_goes_on_after_a_payment_that_was_used_before() -> None:
    variant_id = make_variant(stock=5)
    sold, held = hold_in("confirmed", "order-1", {variant_id: 1}), reserved("order-2", {variant_id: 2}).id

    async def confirm_or_release() -> None:
        async with service() as sessions, sessions.begin() as session:
            with pytest.raises(PaymentRefInUse) as refused:
                await session.run_sync(reservations.confirm, held, PAYMENT)
            assert refused.value.ids == {"reservation_id": held, "other_id": sold}
            await session.run_sync(reservations.release, held)

    asyncio.run(confirm_or_release())

    assert state_of(held) == "released"
    assert broken() == []


def test_a_late_payment_is_a_sale_or_a_refund() -> None:
    scarce, plenty = make_variant(stock=1), make_variant(stock=9)
    unlucky, lucky = hold_in("released", "order-1", {scarce: 1}), hold_in("expired", "order-2", {plenty: 1})
    reserved("order-3", {scarce: 1})

    sold = committed(reservations.confirm_or_reacquire, lucky, "payment-2")
    refund = committed(reservations.confirm_or_reacquire, unlucky, "payment-1")

    assert (sold.state, sold.order_id, sales_of(sold.id)) == (HoldState.CONFIRMED, "order-2", [(plenty, -1)])
    assert isinstance(refund, RefundRequired)
    assert broken() == []


def test_release_gives_back_all_or_all_but_some() -> None:
    first, second = make_variants(2, stock=5)
    hold = reserved("order-1", {first: 4, second: 2})

    committed(reservations.release, hold.id, keep={first: 1})
    assert (lines_of(hold.id), stock_of(first), stock_of(second)) == ({first: 1}, 4, 5)

    committed(reservations.release, hold.id)
    assert stock_of(first) == 5


@pytest.mark.parametrize("pass_over_busy", [False, True])
def test_due_holds_are_expired(pass_over_busy: bool) -> None:
    variant_id = make_variant()
    many_due(30, {variant_id: 1})

    assert committed(reservations.expire_due, 20, pass_over_busy=pass_over_busy) == 20
    assert stock_of(variant_id) == 20


def test_stock_comes_and_goes() -> None:
    variant_id = make_variant()
    committed(inventory.receive, variant_id, 10)
    committed(inventory.adjust, variant_id, -3, reason="broken")
    committed(inventory.take_back, variant_id, 1)

    assert stock_of(variant_id) == 8
    assert broken() == []


def test_holds_are_listed_and_shown() -> None:
    hold = reserved("order-1", {make_variant(stock=5): 2})

    assert [one.id for one in committed(reservations.page)] == [hold.id]
    assert committed(reservations.show, hold.id).order_id == "order-1"


# ---- many at once ----------------------------------------------------------------------------------------------------


def buyers_of(variant_id: int, number: int) -> list[Any]:
    """What so many buyers are told who want one unit at the same moment."""

    async def meet() -> list[Any]:
        async with service(pool_size=10, max_overflow=0) as sessions:
            wishes = [commit(sessions, reservations.reserve, f"order-{n}", {variant_id: 1}) for n in range(number)]
            return await asyncio.gather(*wishes, return_exceptions=True)

    return asyncio.run(meet())


@pytest.mark.parametrize("earlier", ["nobody", "due"])
def test_one_of_many_tasks_gets_the_last_unit(earlier: str) -> None:
    variant_id = make_variant(stock=1)
    if earlier == "due":
        hold_in("due", "order", {variant_id: 1})

    answers = buyers_of(variant_id, 40)

    assert sum(isinstance(answer, Hold) for answer in answers) == 1
    assert {type(answer) for answer in answers} <= {Hold, InsufficientStock, OrderContended}
    assert stock_of(variant_id) == 0
    assert broken() == []


def test_without_the_guard_more_than_one_task_gets_the_last_unit(environ: dict[str, str]) -> None:
    replace_in_reserve(UNITS_GUARD, "")
    drop_the_check()
    variant_id = make_variant(stock=1)

    answers = buyers_of(variant_id, 40)

    assert sum(isinstance(answer, Hold) for answer in answers) > 1
    assert stock_of(variant_id) < 0


# ---- cancelled -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("earlier", "lock"), [("nobody", LOCK_THE_VARIANT), ("due", LOCK_THE_HOLD)])
def test_who_is_cancelled_while_it_waits_for_a_lock_leaves_nothing(earlier: str, lock: str) -> None:
    variant_id = make_variant(stock=1)
    if earlier == "due":
        make_due(reserved("order-0", {variant_id: 1}).id)
    before = everything()

    async def cancel() -> Hold:
        async with service(pool_size=1, max_overflow=0) as sessions:
            with locked(lock):
                buyer = asyncio.create_task(commit(sessions, reservations.reserve, "order-1", {variant_id: 1}))
                await asyncio.to_thread(eventually, somebody_waits_for_a_lock)
                buyer.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await buyer
                await asyncio.to_thread(eventually, lambda: not somebody_waits_for_a_lock())
            assert await asyncio.to_thread(everything) == before
            await asyncio.to_thread(eventually, lambda: value(OTHERS_AT_WORK) == 0)
            # The only connection of the pool is back, and in order.
            hold: Hold = await commit(sessions, reservations.reserve, "order-2", {variant_id: 1})
            return hold

    hold = asyncio.run(cancel())

    assert rows("SELECT id, order_id FROM stock_reservations WHERE state = 'held'") == [(hold.id, "order-2")]
    assert broken() == []


# ---- the engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [True, False])
def test_with_hide_parameters_an_error_says_no_payment(hidden: bool) -> None:
    hold = reserved("order-1", {make_variant(stock=1): 1})
    limits = {"options": "-c lock_timeout=50ms"}

    async def confirm() -> None:
        async with service(hide_parameters=hidden, connect_args=limits) as sessions:
            await commit(sessions, reservations.confirm, hold.id, "s3cret-payment")

    with locked(LOCK_THE_HOLD), pytest.raises(DBAPIError) as failed:
        asyncio.run(confirm())

    assert ("s3cret-payment" in str(failed.value)) is not hidden


def test_a_service_behind_pgbouncer_prepares_no_statements(
    shared: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    variant_id = make_variant(stock=40)
    with pgbouncer(make_url(shared["HARBOR_DATABASE_URL"]), connections=2) as url:

        async def buy() -> list[Any]:
            async with service(str_url(url), connect_args={"prepare_threshold": None}) as sessions:
                wishes = [commit(sessions, reservations.reserve, f"order-{n}", {variant_id: 1}) for n in range(40)]
                return await asyncio.gather(*wishes)

        held = asyncio.run(buy())

    assert all(isinstance(hold, Hold) for hold in held)
    assert stock_of(variant_id) == 0
