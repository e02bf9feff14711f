"""What is wrong with one request of a batch is the answer to it, and what is wrong with a batch is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from db import reservations
from db.errors import (
    HarborError,
    InvalidHold,
    InvalidLines,
    InvalidRequest,
    InvalidRequests,
    InvalidText,
    TooManyVariants,
)
from db.reservations import Hold, HoldRequest
from db.session import transaction
from tests.db.holds import reserved_many
from tests.db.sql import (
    everything,
    recorded,
    touched_nothing,
)
from tests.factories import make_variant, stock_of

pytestmark = pytest.mark.usefixtures("database")


def _said(answer: object) -> object:
    """An answer in a few words: the state of a hold, or the kind of an error."""
    return str(answer.state) if isinstance(answer, Hold) else type(answer).__name__


@pytest.mark.parametrize(
    ("request_", "kind", "about"),
    [
        (None, InvalidRequest, {"place": 1}),
        (("order-1", {1: 1}), InvalidRequest, {"place": 1}),
        ({"order_id": "order-1"}, InvalidRequest, {"place": 1}),
        (HoldRequest("", {1: 1}), InvalidText, {"field": "order_id"}),
        (HoldRequest("order-1", {}), InvalidLines, {"order_id": "order-1"}),
        (HoldRequest("order-1", {1: 1}, hold=timedelta(0)), InvalidHold, {"field": "hold"}),
        (HoldRequest("order-1", dict.fromkeys(range(1, 1_002), 1)), TooManyVariants, {"count": 1_001}),
    ],
)
def test_what_is_wrong_with_one_request_is_the_answer_to_it(
    request_: Any, kind: type[HarborError], about: dict[str, object]
) -> None:
    variant_id = make_variant(stock=5)

    answers = reserved_many(HoldRequest("order-a", {variant_id: 1}), request_, HoldRequest("order-b", {variant_id: 1}))

    assert [_said(answer) for answer in answers] == ["held", kind.__name__, "held"]
    assert isinstance(answers[1], kind)
    assert answers[1].ids.items() >= about.items()
    assert stock_of(variant_id) == 3


def test_the_place_of_a_request_that_is_none_is_named() -> None:
    (answer,) = reserved_many("order-1")  # type: ignore[arg-type] # that is what is wrong with it

    assert str(answer) == "requests[0] must be a HoldRequest, and was 'order-1'."


@pytest.mark.parametrize("requests", [[], ()], ids=["list", "tuple"])
def test_an_empty_batch_has_no_answers_and_asks_nothing(requests: list[HoldRequest]) -> None:
    with transaction() as session, recorded() as sent:
        assert reservations.reserve_many(session, requests) == []

    assert sent == []


def test_1000_requests_are_a_batch_and_1001_are_refused() -> None:
    variant_id = make_variant(stock=1_000)
    requests = [HoldRequest(f"order-{number}", {variant_id: 1}) for number in range(1_001)]
    before = everything()

    with pytest.raises(InvalidRequests) as refused:
        reserved_many(*requests)
    unchanged = everything() == before
    answers = reserved_many(*requests[:-1])

    assert str(refused.value) == "requests must be at most 1000, and was 1001."
    assert unchanged
    assert [_said(answer) for answer in answers] == ["held"] * 1_000
    assert stock_of(variant_id) == 0


@pytest.mark.parametrize("requests", [None, 7, "orders", b"", {}, {1}, iter([]), HoldRequest("order-1", {1: 1})])
def test_what_is_no_list_is_refused(requests: Any) -> None:
    with transaction() as session:
        with pytest.raises(InvalidRequests, match="must be a list of HoldRequest"):
            reservations.reserve_many(session, requests)
        assert touched_nothing(session)
