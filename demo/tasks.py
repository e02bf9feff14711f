"""What the demo's workers run besides Harbor's own tasks. They import it with `celery worker --include demo.tasks`."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

from db.session import transaction
from tasks.declare import task

FOLLOW_UP: Final = "demo.follow_up"
LETTER: Final = "demo.letter"
TICK: Final = "demo.tick"

# Done twice it makes two, so that a job that runs a second time is seen.
_FOLLOW_UP: Final = text("""
INSERT INTO demo_follow_ups AS known (reservation_id, x) VALUES (:reservation_id, 1)
ON CONFLICT (reservation_id) DO UPDATE SET x = known.x + 1""")


@task(FOLLOW_UP)
def follow_up(reservation_id: int) -> None:
    """Count the follow-up of one sale, as one would send one parcel."""
    with transaction() as session:
        session.execute(_FOLLOW_UP, {"reservation_id": reservation_id})


_LETTER: Final = text("UPDATE demo_letters SET x = x + 1 WHERE id = :letter_id")


@task(LETTER)
def letter(letter_id: int) -> None:
    """Count one of many letters that are sent at once."""
    with transaction() as session:
        session.execute(_LETTER, {"letter_id": letter_id})


@task(TICK)
def tick() -> None:
    """Do nothing, once a second: what counts is that each second has its job."""
