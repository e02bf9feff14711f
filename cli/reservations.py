"""`harbor reservations`: look at holds, change and end them by hand, and see which payments have to go back."""

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli import refunds
from cli.errors import explain
from cli.hints import typed
from cli.inventory import variant_id_of
from cli.output import Json, as_json, shown, table
from cli.possible import possible
from db.errors import HarborError

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from db.reservations import HoldDetails, ListedHold

app = typer.Typer(
    no_args_is_help=True,
    help="Look at holds, change and end them by hand, and see which payments have to go back.",
    short_help="Look at holds and refunds; change and end holds by hand.",
    epilog="Example: harbor reservations list --due",
)

_SWEEP_SLICE = timedelta(seconds=4)
_THIRTY_DAYS_IN_MINUTES = 30 * 24 * 60  # The most that `extend` takes; a timedelta takes much more, but not all.


class KeptTwice(HarborError):
    """Variant {variant_id} is named twice by --keep."""


@app.command("list", epilog="Example: harbor reservations list --state held --limit 20")
def list_(
    *,
    state: Annotated[
        Literal["held", "confirmed", "released", "expired"] | None, typer.Option(help="Only holds in this state.")
    ] = None,
    order: Annotated[str | None, typer.Option(help="Only holds of this order.")] = None,
    due: Annotated[bool, typer.Option("--due", help="Only holds whose time is over.")] = False,
    limit: Annotated[int, typer.Option(help="How many, 1 to 1,000.")] = 50,
    after: Annotated[int | None, typer.Option(help="Go on behind this id, the last one of the page before.")] = None,
    json: Json = False,
) -> None:
    """List holds, newest first. `--after` with the last id of a page gives the next one.

    The units are those that a hold still has, or had when it ended.
    """
    from db import reservations
    from db.reservations import HoldState
    from db.session import snapshot

    with snapshot() as session:
        holds = reservations.page(
            session, state=HoldState(state) if state else None, order_id=order, due=due, limit=limit, after=after
        )
    if json:
        as_json([asdict(hold) for hold in holds])
        return
    if not holds:
        print("No holds.")
        return
    columns = ("id", "order", "state", "created", "expires", "ended", "lines", "units")
    table(columns, [_row(hold) for hold in holds])
    if len(holds) == limit:
        print(f"There may be more: the same command with --after {holds[-1].id}")


def _row(hold: "ListedHold") -> tuple[object, ...]:
    return (
        hold.id,
        hold.order_id,
        _state(hold),
        hold.created_at,
        hold.expires_at,
        hold.resolved_at,
        hold.lines,
        hold.units,
    )


def _state(hold: "ListedHold | HoldDetails") -> str:
    return f"{hold.state}, due" if hold.due else hold.state


@app.command(epilog="Example: harbor reservations show 42")
def show(reservation_id: Annotated[int, typer.Argument(help="The hold's id.")], *, json: Json = False) -> None:
    """Show one hold with its lines, and what can be done with it."""
    from db import reservations
    from db.session import snapshot

    with snapshot() as session:
        hold = reservations.show(session, reservation_id)
    can = possible(hold)
    if json:
        as_json({**asdict(hold), "can": list(can)})
        return
    told = {
        "Reservation": hold.id,
        "Order": hold.order_id,
        "State": _state(hold),
        "Created": hold.created_at,
        "Expires": hold.expires_at,
        "Maximum": hold.max_expires_at if hold.state == "held" else None,
        "Extended": _times(hold.extend_count),
        "Ended": hold.resolved_at,
        "Payment": hold.payment_ref,
        "Revived from": hold.revived_from,
    }
    for name, value in told.items():
        if value is not None:
            print(f"{name:<12} {shown(value)}")
    table(
        ("variant", "sku", "qty", "given back"), [(li.variant_id, li.sku, li.qty, li.released_qty) for li in hold.lines]
    )
    for sentence in can.values():
        print(typed(sentence))


def _times(count: int) -> str | None:
    return None if count == 0 else "once" if count == 1 else f"{count} times"


@app.command(epilog="Example: harbor reservations extend 42 --minutes 30")
def extend(
    reservation_id: Annotated[int, typer.Argument(help="The hold's id.")],
    *,
    minutes: Annotated[
        int, typer.Option(min=1, max=_THIRTY_DAYS_IN_MINUTES, help="How long it is to last from now.")
    ] = 15,
    json: Json = False,
) -> None:
    """Let a hold last longer. It never gets shorter, and never lasts beyond the most that it was given at first."""
    from db import reservations
    from db.session import transaction

    with transaction() as session:
        reservations.extend(session, reservation_id, hold=timedelta(minutes=minutes))
        hold = reservations.show(session, reservation_id)
    if json:
        as_json(asdict(hold))
        return
    most = "and cannot last longer"
    if hold.expires_at < hold.max_expires_at:
        most = f"at the most until {shown(hold.max_expires_at)}"
    print(f"Reservation {hold.id} of order {shown(hold.order_id)} is held until {shown(hold.expires_at)}, {most}.")


@app.command(
    epilog="Example: harbor reservations release 42 43, or harbor reservations release 42 --keep HBR-MUG-01-BLUE=1"
)
def release(
    reservation_ids: Annotated[list[int], typer.Argument(help="Ids of holds.")],
    *,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VARIANT=UNITS",
            help="Of one hold, give back all but these; once per variant. A number is its id, anything else its sku.",
        ),
    ] = None,
    sku: Annotated[bool, typer.Option("--sku", help="--keep names skus, though they are numbers.")] = False,
    json: Json = False,
) -> None:
    """Give the units of holds back, each hold by itself: one that cannot be released does not keep the others."""
    from db import reservations
    from db.session import transaction

    wanted = [_named(one) for one in keep or ()]
    if wanted and len(reservation_ids) != 1:
        raise typer.BadParameter(f"is for one hold, and was given {len(reservation_ids)}.", param_hint="'--keep'")
    released = []
    for reservation_id in reservation_ids:
        try:
            with transaction() as session:
                left = _kept(session, wanted, is_sku=sku) if wanted else None
                released.append(reservations.release(session, reservation_id, left))
        except HarborError as error:
            sys.stderr.write(f"harbor: {explain(error)}\n")
    if json:
        as_json([asdict(hold) for hold in released])
    else:
        for hold in released:
            ends = f"keeps {sum(left.values())} units" if left else "is released"
            print(f"Reservation {hold.id} of order {shown(hold.order_id)} {ends}.")
    if len(released) < len(reservation_ids):
        raise typer.Exit(1)


def _named(keep: str) -> tuple[str, int]:
    variant, _, units = keep.rpartition("=")
    try:
        if variant:
            return variant, int(units)
    except ValueError:
        pass
    raise typer.BadParameter(f"must be like HBR-MUG-01-BLUE=2, and was {keep!r}.", param_hint="'--keep'")


def _kept(session: "Session", wanted: list[tuple[str, int]], *, is_sku: bool) -> dict[int, int]:
    kept: dict[int, int] = {}
    for variant, units in wanted:
        variant_id = variant_id_of(session, variant, is_sku=is_sku)
        if variant_id in kept:
            raise KeptTwice(variant_id=variant_id)
        kept[variant_id] = units
    return kept


@app.command(epilog="Example: harbor reservations expire")
def expire(
    *,
    limit: Annotated[int | None, typer.Option(help="End at most so many, 1 to 5,000; else all that are due.")] = None,
    json: Json = False,
) -> None:
    """End the holds whose time is over, as the sweep does every five seconds, and say how many."""
    from db import reservations
    from db.session import transaction
    from tasks.reservations import sweep

    if limit is None:
        expired = 0
        finished = False
        while not finished:
            swept = sweep(_SWEEP_SLICE)
            expired, finished = expired + swept.holds, swept.finished
    else:
        with transaction() as session:
            expired = reservations.expire_due(session, limit)
        finished = expired < limit
    if json:
        as_json({"expired": expired, "finished": finished})
    else:
        print(f"{expired} holds expired{'; nothing else is due.' if finished else ', and there may be more.'}")


app.add_typer(refunds.app)
