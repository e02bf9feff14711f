"""The Redis client of this process, for what may be lost: it answers soon or fails soon, and nobody retries.

Nothing that Redis says is the truth, so no caller waits for a Redis that is away: what it asks for has to be possible
without.
"""

from __future__ import annotations

from functools import lru_cache

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from db.settings import settings

SOCKET_TIMEOUT_SECONDS = 1.0
_CONNECT_TIMEOUT_SECONDS = 0.25  # On the way to a cache that is there it takes a millisecond.
_MAX_CONNECTIONS = 10_000  # One per thread that waits at this moment. By default the 101st would be refused.


@lru_cache(maxsize=4)
def _client(url: str) -> redis.Redis:
    return redis.Redis.from_url(
        url,
        # With 3, the default, the pool does not notice a connection on which somebody left an answer unread.
        protocol=2,
        socket_timeout=SOCKET_TIMEOUT_SECONDS,
        socket_connect_timeout=_CONNECT_TIMEOUT_SECONDS,
        # By default it tries a lost connection again three times, with pauses of seconds.
        retry=Retry(NoBackoff(), 0),
        max_connections=_MAX_CONNECTIONS,
    )


def cache() -> redis.Redis:
    """Return the client of HARBOR_CACHE_URL; its connections are made on first use, and anew in a forked child.

    Raises:
        SettingsError: HARBOR_CACHE_URL is missing or malformed.
    """
    return _client(settings().cache_url.get_secret_value())
