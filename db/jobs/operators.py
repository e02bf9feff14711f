"""Who did what by hand: one row for each command of an operator, in the transaction of what it did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db.checks import checked_text
from db.jobs.queue import OperatorAction

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def record(session: Session, actor: str, action: str, subject: str, **details: Any) -> OperatorAction:
    """Write down what a person does, and return the row; it is committed together with it, or not at all.

    Args:
        session: the caller's; nothing is committed.
        actor: who does it.
        action: the noun and the verb of the command, such as `jobs.retry`.
        subject: what it is done to: a task_id, a queue, a schedule, or `*` for all that a filter in `details` takes.
        details: what else is worth knowing, as JSON values; None is left out.

    Raises:
        InvalidText: actor is empty, too long, or no text that can be stored.
    """
    told = {name: value for name, value in details.items() if value is not None}
    row = OperatorAction(actor=checked_text("actor", actor), action=action, subject=subject, details=told)
    session.add(row)
    return row
