"""`harbor inventory`: deliveries, corrections, and whether all units are accounted for."""

from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import Json, as_json, shown, table
from db.errors import HarborError, VariantNotFound

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.inventory import Reconciliation

app = typer.Typer(
    no_args_is_help=True,
    help="Record deliveries and corrections, and check that all units are accounted for.",
    short_help="Record deliveries and corrections; check every unit.",
    epilog="Example: harbor inventory receive HBR-MUG-01-BLUE 50",
)

_Variant = Annotated[str, typer.Argument(help="The variant: a number is its id, anything else its sku.")]
_Sku = Annotated[bool, typer.Option("--sku", help="The variant is named by its sku, though that is a number.")]

_PROGRESS_SECONDS = 0.5


class SkuOfProduct(HarborError):
    """{sku} is a product. Name one of its variants: {skus}."""


# Without the setting `-5` would be taken for an option, and the answer would be about options.
@app.command(
    epilog="Example: harbor inventory receive HBR-MUG-01-BLUE 50 --reason 'delivery 815'",
    context_settings={"ignore_unknown_options": True},
)
def receive(
    variant: _Variant,
    qty: Annotated[int, typer.Argument(help="Units that came in.")],
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for the ledger.")] = None,
    sku: _Sku = False,
    json: Json = False,
) -> None:
    """Put units that were delivered on sale."""
    from db import inventory
    from db.session import transaction

    with transaction() as session:
        variant_id = variant_id_of(session, variant, is_sku=sku)
        stock_qty = inventory.receive(session, variant_id, qty, reason=reason)
    _report(variant_id, stock_qty, json=json)


# Without it `-3` would be taken for an option.
@app.command(
    epilog="Example: harbor inventory adjust HBR-MUG-01-BLUE -3 --reason 'three were broken'",
    context_settings={"ignore_unknown_options": True},
)
def adjust(
    variant: _Variant,
    change: Annotated[int, typer.Argument(help="Units to add, or to take away: 5 or -3.")],
    *,
    reason: Annotated[str, typer.Option(help="Why, for the ledger.")],
    sku: _Sku = False,
    json: Json = False,
) -> None:
    """Correct how many units there are, up or down, and never below zero."""
    from db import inventory
    from db.session import transaction

    with transaction() as session:
        variant_id = variant_id_of(session, variant, is_sku=sku)
        stock_qty = inventory.adjust(session, variant_id, change, reason=reason)
    _report(variant_id, stock_qty, json=json)


@app.command(epilog="Example: harbor inventory reconcile --budget-seconds 60")
def reconcile(
    *,
    budget_seconds: Annotated[float | None, typer.Option(min=0, help="Stop after this time; else check all.")] = None,
    after: Annotated[int, typer.Option(help="Start behind this variant id, where another run stopped.")] = 0,
    json: Json = False,
) -> None:
    """Check that every unit is on sale, in a hold, or gone for a reason. Changes nothing; exits 1 when any is not."""
    seen = _reconcile(budget_seconds, after)
    if json:
        as_json({**asdict(seen), "finished": seen.next_after is None})
    else:
        if seen.broken:
            columns = ("variant", "sku", "on sale", "held", "moved", "off by")
            table(columns, [(*asdict(b).values(), b.stock_qty + b.held_qty - b.moved_qty) for b in seen.broken])
        print(f"{seen.checked} variants checked, {len(seen.broken)} broken.")
        if seen.next_after is not None:
            print(f"The time was over before all were checked; the rest: --after {seen.next_after}")
    if seen.broken:
        raise typer.Exit(1)


def _reconcile(budget_seconds: float | None, after: int) -> "Reconciliation":
    """Reconcile in slices, so that progress can be shown on a terminal between them."""
    import time

    from rich.console import Console

    from db import inventory

    ends = None if budget_seconds is None else time.monotonic() + budget_seconds
    total = inventory.Reconciliation(next_after=after)
    with Console(stderr=True).status("Checking variants") as status:
        while total.next_after is not None:
            left_seconds = _PROGRESS_SECONDS if ends is None else min(_PROGRESS_SECONDS, ends - time.monotonic())
            if left_seconds < 0 and total.checked:
                break
            seen = inventory.reconcile(budget=timedelta(seconds=left_seconds), after=total.next_after)
            total.checked += seen.checked
            total.broken += seen.broken
            total.next_after = seen.next_after
            status.update(f"{total.checked} variants checked, {len(total.broken)} broken")
    return total


def variant_id_of(session: "Session", variant: str, *, is_sku: bool) -> int:
    """Return the id that an operator means by a variant's id or sku. Raises VariantNotFound."""
    from db import inventory

    # Python refuses to read a number of thousands of digits; one that long is no id, but may be a sku.
    if variant.isdecimal() and len(variant) < 20 and not is_sku:  # noqa: PLR2004
        return int(variant)
    try:
        return inventory.variant_id_of(session, variant)
    except VariantNotFound:
        if skus := _skus_of_product(session, variant):
            raise SkuOfProduct(sku=variant, skus=skus) from None
        raise


def _skus_of_product(session: "Session", sku: str) -> list[str]:
    from sqlalchemy import select

    from db.inventory import Product, Variant

    return list(session.scalars(select(Variant.sku).join(Variant.product).where(Product.sku == sku)))


def _report(variant_id: int, stock_qty: int, *, json: bool) -> None:
    if json:
        as_json({"variant_id": variant_id, "stock_qty": stock_qty})
    else:
        print(f"Variant {variant_id} has {shown(stock_qty)} units free to sell.")
