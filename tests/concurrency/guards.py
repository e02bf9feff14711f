"""Taking a guard out of harbor_reserve_v1, in the test's own database: what then goes wrong is the negative control."""

from __future__ import annotations

from tests.db.sql import change, value

UNITS_GUARD = "AND v.stock_qty >= w.qty"
LOCK_ORDER = "ORDER BY v.id FOR NO KEY UPDATE"


def replace_in_reserve(guard: str, instead: str) -> None:
    """Define the function again with other words in one place."""
    source = str(value("SELECT pg_get_functiondef(CAST('harbor_reserve_v1' AS regproc))"))
    assert source.count(guard) == 1, f"harbor_reserve_v1 no longer says {guard!r} once"
    # A colon would be taken for a bind parameter.
    change(source.replace(guard, instead).replace(":", "\\:"))


def drop_the_check() -> None:
    """Let stock_qty go below zero."""
    change("ALTER TABLE variants DROP CONSTRAINT ck_variants_stock_not_negative")
