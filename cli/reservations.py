"""`harbor reservations`: look at holds, and end them by hand."""

import sys
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.errors import explain
from cli.hints import typed
from cli.output import Json, as_json, shown, table
from db.errors import HarborError

if TYPE_CHECKING:
    from db.reservations import HoldDetails, ListedHold

app = typer.Typer(
    no_args_is_help=True, help="Look at holds, and end them by hand.", epilog="Example: harbor reservations list --due"
)

_SWEEP_SLICE = timedelta(seconds=4)


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
    """List holds, newest first. `--after` with the last id of a page gives the next one."""
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
    can = _possible(hold)
    if json:
        as_json({**asdict(hold), "can": list(can)})
        return
    told = {
        "Reservation": hold.id,
        "Order": hold.order_id,
        "State": _state(hold),
        "Created": hold.created_at,
        "Expires": hold.expires_at,
        "Ended": hold.resolved_at,
        "Payment": hold.payment_ref,
    }
    for name, value in told.items():
        if value is not None:
            print(f"{name:<12} {shown(value)}")
    table(
        ("variant", "sku", "qty", "given back"), [(li.variant_id, li.sku, li.qty, li.released_qty) for li in hold.lines]
    )
    for sentence in can.values():
        print(typed(sentence))


def _possible(hold: "HoldDetails") -> dict[str, str]:
    """Return what can be done with a hold, each with the sentence that says how."""
    if hold.due:
        return {"expire": "Its time is over: the next sweep ends it, or `harbor reservations expire` now."}
    if hold.state == "held":
        return {
            "confirm": "The task reservations.confirm sells it, with a payment.",
            "release": f"`harbor reservations release {hold.id}` gives its units back.",
        }
    if hold.state == "confirmed":
        return {"take_back": "It is sold. What a customer returns is put back on sale with inventory.take_back."}
    return {}


@app.command(epilog="Example: harbor reservations release 42 43")
def release(
    reservation_ids: Annotated[list[int], typer.Argument(help="Ids of holds.")],
    *,
    json: Json = False,
) -> None:
    """Give the units of holds back, each hold by itself: one that cannot be released does not keep the others."""
    from db import reservations
    from db.session import transaction

    released = []
    for reservation_id in reservation_ids:
        try:
            with transaction() as session:
                released.append(reservations.release(session, reservation_id))
        except HarborError as error:
            sys.stderr.write(f"harbor: {explain(error)}\n")
    if json:
        as_json([asdict(hold) for hold in released])
    else:
        for hold in released:
            print(f"Reservation {hold.id} of order {shown(hold.order_id)} is released.")
    if len(released) < len(reservation_ids):
        raise typer.Exit(1)


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
