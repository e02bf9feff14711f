"""What tests put into the database, by the same functions that services use."""

from __future__ import annotations

from itertools import count

from db import inventory
from db.inventory import Product, Variant
from db.session import transaction

_numbers = count(1)


def make_variant(*, stock: int = 0, archived: bool = False) -> int:
    """Commit a product with one variant that has `stock` units, and return the variant's id."""
    return make_variants(1, stock=stock, archived=archived)[0]


def make_variants(variants: int, *, stock: int = 0, archived: bool = False) -> list[int]:
    """Commit one product with several variants of `stock` units each, and return their ids, ascending."""
    number = next(_numbers)
    with transaction() as session:
        product = Product(
            sku=f"HBR-{number:05}",
            name=f"Product {number}",
            price_cents=900,
            variants=[Variant(sku=f"HBR-{number:05}-{size}", size=str(size)) for size in range(variants)],
        )
        session.add(product)
        session.flush()
        ids = sorted(variant.id for variant in product.variants)
        for variant_id in ids if stock else []:
            inventory.receive(session, variant_id, stock)
        if archived:
            inventory.archive(session, product.id)
    return ids


def stock_of(variant_id: int) -> int:
    """Return the units of a variant that are free to sell, as committed."""
    with transaction() as session:
        variant = session.get_one(Variant, variant_id)
        return variant.stock_qty
