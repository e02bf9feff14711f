"""Products, their variants, and every unit that ever moved.

receive      a delivery comes in
adjust       the count is corrected, with a reason
take_back    a customer returns what was sold
archive      a product goes off sale; delete_product is for one that nobody ever held
reconcile    are all units accounted for?
"""

from db.inventory.books import BrokenVariant, Reconciliation, reconcile
from db.inventory.movements import MovementKind, StockMovement, adjust, receive, take_back
from db.inventory.products import Product, Variant, archive, delete_product, variant_id_of

__all__ = [
    "BrokenVariant",
    "MovementKind",
    "Product",
    "Reconciliation",
    "StockMovement",
    "Variant",
    "adjust",
    "archive",
    "delete_product",
    "receive",
    "reconcile",
    "take_back",
    "variant_id_of",
]
