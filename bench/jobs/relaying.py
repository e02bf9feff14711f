"""A relay in this process: its own loop of lease and publish, on a broker of the bench's."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench.jobs import ledger
from bench.measure import check
from db.settings import settings

if TYPE_CHECKING:
    from bench.jobs.publish import Publisher


def relay(publisher: Publisher, rows: int, *, queue: str) -> float:
    """Relay `rows` of the due jobs, and return the rows per second.

    It is what `harbor relay` does as long as there is more to publish: one turn after the other, without a pause.

    Raises:
        CheckFailedError: a row was published twice or not at all, or its message did not arrive.
    """
    # The app is configured when it is imported, by an environment that this module's import is too early for.
    from worker.logging import configure
    from worker.relay import Relay

    # As `harbor relay` does, at the level of the processes of the race: a line per batch would be part of the time.
    configure(settings().model_copy(update={"log_level": "WARNING"}))
    check("kombu does not publish in batches", right=publisher.producer.supports_batch_publish)
    turns, relayed = Relay(), 0
    began = time.perf_counter()
    while relayed < rows:
        published = turns._publish_due(publisher.producer)  # noqa: SLF001 - the loop itself waits when nothing is due
        check(f"harbor published {relayed} of {rows} jobs, and found no more", right=published > 0)
        relayed += published
    seconds = time.perf_counter() - began
    publisher.take_away(relayed, queue)
    ledger.check_count("published", relayed)
    return relayed / seconds
