"""What can be done with a hold, each with the command that does it, ready to be typed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from db.reservations import HoldDetails


def possible(hold: "HoldDetails") -> dict[str, str]:
    """Return what can be done with a hold, each with the sentence that says how."""
    if hold.due:
        return {"expire": "Its time is over: the next sweep ends it, or `harbor reservations expire` now."}
    if hold.state == "held":
        call = f"celery -A worker call reservations.confirm --args '[{hold.id}, \"PAYMENT\"]'"
        can = {"confirm": f"`{call}` sells it with that payment."}
        if hold.expires_at < hold.max_expires_at:
            extends = f"`harbor reservations extend {hold.id} --minutes 15`"
            can["extend"] = f"{extends} lets it last 15 minutes from now, if that is longer than it does already."
        can["release"] = f"`harbor reservations release {hold.id}` gives its units back{_but_one(hold)}."
        return can
    if hold.state == "confirmed":
        call = f"inventory.take_back(session, variant_id, qty, reservation_id={hold.id})"
        return {"take_back": f"It is sold. `{call}` puts on sale again what the customer returns."}
    return {}


def _but_one(hold: "HoldDetails") -> str:
    left = {line.variant_id: line.qty - line.released_qty for line in hold.lines if line.qty > line.released_qty}
    return f"; with `--keep {min(left)}=1` all but one" if sum(left.values()) > 1 else ""
