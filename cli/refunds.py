"""`harbor reservations refunds`: the payments that came too late to be sales."""

import shlex
from dataclasses import asdict
from typing import Annotated

import typer

from cli.output import Json, as_json, shown, table

app = typer.Typer()


@app.command(epilog="Example: harbor reservations refunds --limit 20")
def refunds(
    *,
    limit: Annotated[int, typer.Option(help="How many, 1 to 1,000.")] = 50,
    after: Annotated[str | None, typer.Option(help="Go on behind this payment, the last of the page before.")] = None,
    json: Json = False,
) -> None:
    """List the payments that have to go back. The newest is first; `--after` with the last one gives the next page.

    Harbor keeps them for ever. Which of them have gone back, the payment provider knows.
    """
    from db.reservations import refunds as listed
    from db.session import snapshot

    with snapshot() as session:
        found = listed(session, limit=limit, after=after)
    if json:
        as_json([asdict(refund) for refund in found])
        return
    if not found:
        print("No refunds.")
        return
    columns = ("payment", "order", "reservation", "reason", "variants", "since")
    rows = [
        (
            refund.payment_ref,
            refund.order_id,
            refund.reservation_id,
            refund.reason,
            refund.variant_ids,
            refund.created_at,
        )
        for refund in found
    ]
    table(columns, [(*row[:4], ", ".join(map(str, row[4])), row[5]) for row in rows])
    if len(found) == limit:
        print(f"There may be more: the same command with --after {shlex.quote(shown(found[-1].payment_ref))}")
