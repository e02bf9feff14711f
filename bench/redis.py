"""A Redis database of the bench's own: one that was empty, and is again afterwards.

Promise: a bench never touches a key that it did not make itself.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import redis
from sqlalchemy.engine import make_url

from bench.measure import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Iterator

_DATABASES: Final = range(2, 16)  # 0 and 1 are the broker's and the cache's; a server has 16 unless told otherwise.
_CLAIM: Final = "bench"


@contextmanager
def empty(url: str) -> Iterator[str]:
    """Take a database of the server of `url` that holds nothing, and yield its URL; empty it when the block ends.

    Raises:
        CheckFailedError: each of its databases from 2 to 15 holds something.
    """
    for database in _DATABASES:
        own = make_url(url).set(database=str(database)).render_as_string(hide_password=False)
        client: Any = redis.Redis.from_url(own)
        with client:
            # The claim is the only key: nobody else has any there, nor a claim of their own.
            if client.set(_CLAIM, "claimed", nx=True):
                if client.dbsize() == 1:
                    try:
                        yield own
                    finally:
                        client.flushdb()
                    return
                client.delete(_CLAIM)
    raise CheckFailedError("each database from 2 to 15 of a Redis server holds something; the bench needs empty ones")
