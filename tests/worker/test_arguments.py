"""A task is told primary keys: an ORM object is refused where it is sent, by the name of the argument."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from db.errors import InvalidArgument
from db.inventory import Variant

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery

    from tests.broker import Broker

_VARIANT = Variant(sku="HBR-MUG-01")


def _release(app: Celery) -> Any:
    return app.tasks["reservations.release"]


_SENDINGS: dict[str, tuple[Callable[[Celery, Any], object], str]] = {
    "send_task, positional": (
        lambda app, connection: app.send_task("reservations.release", args=[_VARIANT], connection=connection),
        "reservation_id",
    ),
    "send_task, second of two": (
        lambda app, connection: app.send_task("reservations.confirm", args=[1, _VARIANT], connection=connection),
        "payment_ref",
    ),
    "send_task, keyword": (
        lambda app, connection: app.send_task(
            "reservations.release", kwargs={"reservation_id": _VARIANT}, connection=connection
        ),
        "reservation_id",
    ),
    "send_task, a task that this process does not know": (
        lambda app, connection: app.send_task("cache.warm", args=[1, _VARIANT], connection=connection),
        "2",
    ),
    "apply_async, positional": (
        lambda app, connection: _release(app).apply_async((_VARIANT,), connection=connection),
        "reservation_id",
    ),
    "apply_async, keyword": (
        lambda app, connection: _release(app).apply_async(kwargs={"reservation_id": _VARIANT}, connection=connection),
        "reservation_id",
    ),
    "a signature": (
        lambda app, connection: _release(app).s(_VARIANT).apply_async(connection=connection),
        "reservation_id",
    ),
}


@pytest.mark.parametrize(("sending", "argument"), _SENDINGS.values(), ids=_SENDINGS)
def test_an_orm_object_is_refused_by_the_name_of_its_argument(
    app: Celery, broker: Broker, sending: Callable[[Celery, Any], object], argument: str
) -> None:
    with app.connection_for_write(url=broker.url) as connection, pytest.raises(InvalidArgument) as refused:
        sending(app, connection)

    assert refused.value.ids["argument"] == argument
    assert argument in str(refused.value)
    assert broker.lengths() == {}


@pytest.mark.parametrize("hidden", [[_VARIANT], {"variant": _VARIANT}], ids=["in a list", "in a dict"])
def test_an_orm_object_inside_another_value_is_not_sent_either(app: Celery, broker: Broker, hidden: Any) -> None:
    with app.connection_for_write(url=broker.url) as connection, pytest.raises(Exception, match="Variant"):
        app.send_task("cache.warm", args=[hidden], connection=connection)

    assert broker.lengths() == {}


def test_a_primary_key_is_sent(app: Celery, broker: Broker) -> None:
    with app.connection_for_write(url=broker.url) as connection:
        app.send_task("reservations.release", args=[7], connection=connection)

    assert broker.lengths() == {"expiry": 1}
