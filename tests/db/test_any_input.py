"""Whatever a function is given, it works or says no in Harbor's own words, and the caller's transaction lives on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from db import inventory, reservations
from db.errors import HarborError, InvalidInput
from db.reservations import HoldRequest, RefundRequired
from db.session import transaction
from tests.db.holds import MISSING, PAYMENT, hold_in, paid
from tests.db.sql import everything, touched_nothing, value
from tests.factories import make_variant, make_variants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hypothesis.strategies import SearchStrategy
    from sqlalchemy.orm import Session

    Strategies = dict[str, SearchStrategy[Any]]

REFUNDED = "payment-3"

# ---- anything --------------------------------------------------------------------------------------------------------

# Hypothesis cannot show an integer of more than 4,300 digits, so it draws the sign of one.
integers = st.one_of(
    st.integers(),
    st.sampled_from([0, 1, -1, 2**15, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, 2**63, -(2**63)]),
    st.sampled_from([1, -1]).map(lambda sign: sign * 10**5_000),
)
texts = st.text(st.characters(exclude_categories=())) | st.sampled_from(
    ["\0", "a\0b", "\ud800", "half \udfff", "x" * 200, "x" * 201, "x" * 100_000, "%s %(a)s :a {b} {", "' OR true --"]
)
durations = st.timedeltas() | st.sampled_from([timedelta.min, timedelta.max, timedelta(0), timedelta.resolution])
keys: SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), integers, st.floats(), st.complex_numbers(), texts, st.binary(), durations, st.uuids()
)
anything: SearchStrategy[Any] = st.recursive(
    keys | st.decimals() | st.datetimes(),
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.sets(keys) | st.dictionaries(keys, inner),
    max_leaves=8,
)

# ---- something that may be right -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shop:
    """The ids of what there is: products on and off sale, with and without stock, and a hold in each state."""

    products: list[int]
    variants: list[int]
    holds: list[int]


@pytest.fixture
def shop(database: None) -> Iterator[Shop]:
    on_sale = make_variants(3, stock=20)
    others = [make_variant(), make_variant(stock=5, archived=True)]
    states = ["held", "due", "confirmed", "released", "expired"]
    holds = [hold_in(state, f"order-{state}", {on_sale[0]: 2, on_sale[1]: 1}) for state in states]
    assert isinstance(paid(holds[2], REFUNDED), RefundRequired)
    products = [value("SELECT product_id FROM variants WHERE id = :id", id=one) for one in (on_sale[0], *others)]
    before = everything()
    yield Shop([*products, MISSING], [*on_sale, *others, MISSING], [*holds, MISSING])
    assert everything() == before


def _or_anything(likely: SearchStrategy[Any]) -> SearchStrategy[Any]:
    return st.booleans().flatmap(lambda right: likely if right else anything)


def _reserve(shop: Shop) -> Strategies:
    order_ids = st.sampled_from(["order-new", "order-held", "order-due", "order-confirmed", "order-released"])
    lines = st.dictionaries(st.sampled_from(shop.variants), _or_anything(st.integers(1, 30)), min_size=1)
    likely = st.timedeltas(timedelta(seconds=1), timedelta(minutes=30))
    return {
        "order_id": _or_anything(order_ids),
        "lines": lines | st.dictionaries(keys, _or_anything(st.just(1))) | anything,
        "hold": _or_anything(likely),
        "max_hold": _or_anything(st.just(timedelta(hours=1))),
    }


def _hold(shop: Shop) -> Strategies:
    return {"reservation_id": _or_anything(st.sampled_from(shop.holds))}


def _payment(shop: Shop) -> Strategies:
    return _hold(shop) | {"payment_ref": _or_anything(st.sampled_from([PAYMENT, "payment-2", REFUNDED]))}


def _extension(shop: Shop) -> Strategies:
    return _hold(shop) | {"hold": _or_anything(st.timedeltas(timedelta(seconds=1), timedelta(days=30)))}


def _keep(shop: Shop) -> Strategies:
    lines = st.dictionaries(st.sampled_from(shop.variants), _or_anything(st.integers(1, 3)))
    return _hold(shop) | {"keep": lines | _or_anything(st.none())}


def _batch(shop: Shop) -> Strategies:
    requests = st.fixed_dictionaries(_reserve(shop)).map(lambda told: HoldRequest(**told))
    return {"requests": st.lists(requests | anything, max_size=3) | anything}


def _sweep(_shop: Shop) -> Strategies:
    return {"limit": _or_anything(st.integers(1, 5_000)), "pass_over_busy": _or_anything(st.booleans())}


def _page(shop: Shop) -> Strategies:
    return {
        "state": _or_anything(st.none() | st.sampled_from(reservations.HoldState)),
        "order_id": _or_anything(st.none() | st.just("order-held")),
        "due": _or_anything(st.booleans()),
        "limit": _or_anything(st.integers(1, 1_000)),
        "after": _or_anything(st.none() | st.sampled_from(shop.holds)),
    }


def _sku(_shop: Shop) -> Strategies:
    return {"sku": _or_anything(texts)}


def _movement(shop: Shop) -> Strategies:
    return {
        "variant_id": _or_anything(st.sampled_from(shop.variants)),
        "qty": _or_anything(st.integers(1, 2**31 - 1)),
        "reason": _or_anything(st.none() | st.just("counted")),
    }


def _adjustment(shop: Shop) -> Strategies:
    movement = _movement(shop)
    return {
        "variant_id": movement["variant_id"],
        "qty": _or_anything(st.integers(-30, 30)),
        "reason": movement["reason"],
    }


def _product(shop: Shop) -> Strategies:
    return {"product_id": _or_anything(st.sampled_from(shop.products))}


def _books(shop: Shop) -> Strategies:
    return {
        "budget": _or_anything(st.none() | durations),
        "after": _or_anything(st.sampled_from([0, *shop.variants])),
        "page": _or_anything(st.integers(1, 100_000)),
    }


def _reconcile(_session: Session, **told: Any) -> object:
    return inventory.reconcile(**told)


@pytest.mark.parametrize(
    ("function", "strategies"),
    [
        pytest.param(reservations.reserve, _reserve, id="reserve"),
        pytest.param(reservations.confirm, _payment, id="confirm"),
        pytest.param(reservations.confirm_or_reacquire, _payment, id="confirm_or_reacquire"),
        pytest.param(reservations.extend, _extension, id="extend"),
        pytest.param(reservations.release, _hold, id="release"),
        pytest.param(reservations.release, _keep, id="release but some"),
        pytest.param(reservations.reserve_many, _batch, id="reserve_many"),
        pytest.param(
            reservations.expire_due, lambda _: {"limit": _or_anything(st.integers(1, 5_000))}, id="expire_due"
        ),
        pytest.param(reservations.page, _page, id="page"),
        pytest.param(reservations.show, _hold, id="show"),
        pytest.param(inventory.variant_id_of, _sku, id="variant_id_of"),
        pytest.param(inventory.receive, _movement, id="receive"),
        pytest.param(inventory.adjust, _adjustment, id="adjust"),
        pytest.param(inventory.take_back, lambda shop: _movement(shop) | _hold(shop), id="take_back"),
        pytest.param(inventory.archive, _product, id="archive"),
        pytest.param(inventory.delete_product, _product, id="delete_product"),
        pytest.param(_reconcile, _books, id="reconcile"),
    ],
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_whatever_it_is_given_it_works_or_says_no_in_harbors_own_words(
    shop: Shop, function: Callable[..., object], strategies: Callable[[Shop], Strategies], data: st.DataObject
) -> None:
    arguments = data.draw(st.fixed_dictionaries(strategies(shop)))

    with transaction() as session:
        try:
            function(session, **arguments)
        except InvalidInput:
            assert touched_nothing(session)
        except HarborError:
            session.execute(text("SELECT 1"))
        session.rollback()
