"""A typed function per task of Harbor, as in `tasks.reservations.release(42)`.

Written by `python -m worker.client_tasks`; do not edit.
"""

from harbor_client.tasks import (
    inventory,
    jobs,
    reservations,
)

__all__ = [
    "inventory",
    "jobs",
    "reservations",
]
