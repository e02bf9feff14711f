"""The role that docs/operations.md makes can do all that Harbor does, and cannot rewrite the ledger or the schema."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ProgrammingError

from db import engine, inventory, reservations
from db.session import transaction
from db.settings import settings
from tests.conftest import str_url
from tests.db.holds import reserved, swept
from tests.db.sql import change, make_due
from tests.docs.blocks import blocks_of
from tests.factories import make_variant
from tests.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def as_application(environ: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as the role of the page, in a database of its own."""
    owner = make_url(environ["HARBOR_DATABASE_URL"])
    for block in blocks_of(ROOT / "docs/operations.md"):
        if block.language == "sql":
            for statement in filter(None, map(str.strip, block.text.split(";"))):
                change(statement)
    # The page leaves the password to psql; the test's servers ask for one.
    change("ALTER ROLE harbor_app PASSWORD 'for-this-test'")
    _become(owner.set(username="harbor_app", password="for-this-test"), monkeypatch)
    yield
    _become(owner, monkeypatch)
    change("DROP OWNED BY harbor_app")
    change("DROP ROLE harbor_app")


def _become(url: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_DATABASE_URL", str_url(url))  # type: ignore[arg-type]
    settings.cache_clear()
    engine.dispose()


@pytest.mark.usefixtures("as_application")
def test_the_role_of_the_application_can_do_all_that_harbor_does() -> None:
    variant_id = make_variant(stock=10)
    kept, late, due = (reserved(f"order-{number}", {variant_id: 2}) for number in range(3))

    with transaction() as session:
        reservations.extend(session, kept.id)
    with transaction() as session:
        reservations.release(session, kept.id, keep={variant_id: 1})
    with transaction() as session:
        reservations.confirm(session, kept.id, "payment-1")
    make_due(late.id, due.id)
    with transaction() as session:
        reservations.confirm_or_reacquire(session, late.id, "payment-2")
    with transaction() as session:
        refund = reservations.confirm_or_reacquire(session, late.id, "payment-3")
    with transaction() as session:
        inventory.take_back(session, variant_id, 1, reservation_id=kept.id)

    assert isinstance(refund, reservations.RefundRequired)
    assert swept() == 1
    assert inventory.reconcile().broken == []


@pytest.mark.usefixtures("as_application")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stock_movements SET qty = qty + 1",
        "DELETE FROM stock_movements",
        "DELETE FROM required_refunds",
        "DELETE FROM alembic_version",
        "ALTER TABLE variants DROP CONSTRAINT ck_variants_stock_not_negative",
        "CREATE TABLE more (id int)",
    ],
)
def test_the_role_of_the_application_cannot_rewrite_the_ledger_or_the_schema(statement: str) -> None:
    with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"), transaction() as session:
        session.execute(text(statement))
