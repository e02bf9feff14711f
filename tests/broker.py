"""A broker of a test's own: a database of the Redis server that was empty, and is again afterwards.

The tests' servers are shared; two workers on one database would take each other's messages.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_DATABASES = range(2, 16)  # 0 and 1 are the broker's and the cache's own; a server has 16 unless told otherwise.
_KEY_PREFIX = "harbor:"  # celeryconfig's global_keyprefix.
_PRIORITY_SEPARATOR = "\x06\x16"  # kombu keeps one list per queue and priority.


@dataclass(frozen=True)
class Broker:
    """One Redis database. `client` sees it as the server does, beneath Celery."""

    url: str
    client: redis.Redis

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The same environment with this broker."""
        return {**environ, "HARBOR_BROKER_URL": self.url}

    def lengths(self) -> dict[str, int]:
        """How many messages wait in each queue that has some."""
        lengths: Counter[str] = Counter()
        for key in self.client.scan_iter(match=f"{_KEY_PREFIX}*", _type="list"):
            queue = key.decode().removeprefix(_KEY_PREFIX).split(_PRIORITY_SEPARATOR)[0]
            lengths[queue] += int(self.client.llen(key))
        return dict(lengths)

    def push(self, queue: str, message: str) -> None:
        """Put a message into a queue as it is."""
        self.client.lpush(f"{_KEY_PREFIX}{queue}", message)

    def unacked(self) -> int:
        """How many messages workers have taken and not yet acknowledged."""
        hashes = self.client.scan_iter(match=f"{_KEY_PREFIX}unacked:*", _type="hash")
        return sum(int(self.client.hlen(key)) for key in hashes)


@contextmanager
def own_broker(environ: Mapping[str, str]) -> Iterator[Broker]:
    """Take a database of the broker's server that holds nothing; what the test puts there is removed at the end."""
    server = environ["HARBOR_BROKER_URL"].rpartition("/")[0]
    for database in _DATABASES:
        url = f"{server}/{database}"
        client: Any = redis.Redis.from_url(url)
        with client:
            if client.dbsize() == 0:
                try:
                    yield Broker(url, client)
                finally:
                    client.flushdb()
                return
    raise AssertionError(f"none of the databases {_DATABASES} of the broker's server is empty")
