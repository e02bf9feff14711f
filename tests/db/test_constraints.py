"""The last line of defence: what no function of Harbor would write, PostgreSQL refuses by the name of its rule."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import IntegrityError

from tests.db.sql import change, rows

pytestmark = pytest.mark.usefixtures("database")

PRODUCT = "INSERT INTO products (sku, name, price_cents) VALUES"
VARIANT = "INSERT INTO variants (product_id, sku, stock_qty) VALUES"
MOVEMENT = "INSERT INTO stock_movements (variant_id, kind, qty, reservation_id, reason) VALUES"
HOLD = """INSERT INTO stock_reservations
            (order_id, state, expires_at, max_expires_at, payment_ref, resolved_at, request_hash) VALUES"""
LINE = "INSERT INTO stock_reservation_lines (reservation_id, variant_id, qty, released_qty) VALUES"

GOOD = [
    f"{PRODUCT} ('HBR-MUG', 'Mug', 900)",
    "INSERT INTO variants (product_id, sku) SELECT id, 'HBR-MUG-01' FROM products",
    f"{HOLD} ('order-1', 'held', now(), now(), NULL, NULL, '')",
    f"{HOLD} ('order-2', 'confirmed', now(), now(), 'payment-1', now(), '')",
    """INSERT INTO stock_reservation_lines (reservation_id, variant_id, qty)
       SELECT r.id, v.id, 1 FROM stock_reservations r, variants v WHERE r.order_id = 'order-1'""",
]

THE_PRODUCT = "(SELECT id FROM products)"
THE_VARIANT = "(SELECT id FROM variants)"
THE_HOLD = "(SELECT id FROM stock_reservations WHERE order_id = 'order-2')"


BAD_ROWS = [
    ("ck_products_price_not_negative", f"{PRODUCT} ('HBR-CUP', 'Cup', -1)"),
    ("uq_products_sku", f"{PRODUCT} ('HBR-MUG', 'Mug', 900)"),
    ("ck_variants_stock_not_negative", f"{VARIANT} ({THE_PRODUCT}, 'HBR-MUG-02', -1)"),
    ("ck_variants_stock_not_negative", "UPDATE variants SET stock_qty = stock_qty - 1"),
    ("uq_variants_sku", f"{VARIANT} ({THE_PRODUCT}, 'HBR-MUG-01', 0)"),
    ("fk_variants_product_id_products", f"{VARIANT} (999, 'HBR-MUG-02', 0)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'receive', 0, NULL, NULL)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'receive', -1, NULL, NULL)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'take_back', 0, NULL, NULL)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'take_back', -1, 1, 'back')"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'adjust', 0, NULL, 'counted')"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'adjust', 1, NULL, NULL)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'sale', 1, 1, NULL)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'sale', 0, 1, NULL)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'sale', -1, NULL, NULL)"),
    ("ck_stock_movements_kind", f"{MOVEMENT} (1, 'stolen', -1, 1, 'gone')"),
    ("ck_stock_reservations_state", f"{HOLD} ('order-3', 'sold', now(), now(), NULL, now(), '')"),
    (
        "ck_stock_reservations_resolved_when_not_held",
        f"{HOLD} ('order-3', 'held', now(), now(), NULL, now(), '')",
    ),
    (
        "ck_stock_reservations_resolved_when_not_held",
        f"{HOLD} ('order-3', 'released', now(), now(), NULL, NULL, '')",
    ),
    (
        "ck_stock_reservations_paid_when_confirmed",
        f"{HOLD} ('order-3', 'confirmed', now(), now(), NULL, now(), '')",
    ),
    (
        "ck_stock_reservations_paid_when_confirmed",
        f"{HOLD} ('order-3', 'released', now(), now(), 'payment-3', now(), '')",
    ),
    (
        "ck_stock_reservations_expires_within_max",
        f"{HOLD} ('order-3', 'held', now(), now() - interval '1 ms', NULL, NULL, '')",
    ),
    ("uq_stock_reservations_live_order", f"{HOLD} ('order-1', 'held', now(), now(), NULL, NULL, '')"),
    ("uq_stock_reservations_live_order", f"{HOLD} ('order-2', 'held', now(), now(), NULL, NULL, '')"),
    (
        "uq_stock_reservations_payment_ref",
        f"{HOLD} ('order-3', 'confirmed', now(), now(), 'payment-1', now(), '')",
    ),
    (
        "fk_stock_reservations_revived_from_stock_reservations",
        "UPDATE stock_reservations SET revived_from = 999999",
    ),
    ("ck_stock_reservation_lines_qty_positive", f"{LINE} ({THE_HOLD}, {THE_VARIANT}, 0, 0)"),
    ("ck_stock_reservation_lines_released_within_qty", f"{LINE} ({THE_HOLD}, {THE_VARIANT}, 1, 2)"),
    ("ck_stock_reservation_lines_released_within_qty", f"{LINE} ({THE_HOLD}, {THE_VARIANT}, 1, -1)"),
    ("pk_stock_reservation_lines", "INSERT INTO stock_reservation_lines SELECT * FROM stock_reservation_lines"),
    ("fk_stock_reservation_lines_variant_id_variants", f"{LINE} ({THE_HOLD}, 999, 1, 0)"),
    ("fk_stock_reservation_lines_variant_id_variants", "DELETE FROM products"),
    ("fk_stock_reservation_lines_reservation_id_stock_reservations", f"{LINE} (999999, {THE_VARIANT}, 1, 0)"),
]


@pytest.mark.parametrize(("rule", "statement"), BAD_ROWS)
def test_a_row_that_breaks_a_rule_is_refused(rule: str, statement: str) -> None:
    for good in GOOD:
        change(good)

    with pytest.raises(IntegrityError) as refused:
        change(statement)

    diagnosis = getattr(refused.value.orig, "diag", None)
    assert diagnosis is not None
    assert diagnosis.constraint_name == rule


def test_every_rule_of_every_table_is_broken_by_one_of_these_rows() -> None:
    tables = ["products", "variants", "stock_movements", "stock_reservations", "stock_reservation_lines"]

    rules = rows(
        """SELECT conname FROM pg_constraint WHERE conrelid::regclass::text = ANY(:tables) AND contype <> 'n'
           UNION SELECT indexrelid::regclass::text FROM pg_index
                  WHERE indrelid::regclass::text = ANY(:tables) AND indisunique""",
        tables=tables,
    )

    # The identity columns cannot repeat a number, so nothing can break the primary keys made of one.
    identities = {f"pk_{table}" for table in tables if table != "stock_reservation_lines"}
    assert {str(rule) for (rule,) in rules} - identities == {rule for rule, _ in BAD_ROWS}
