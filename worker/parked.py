"""The list of what was no message: its newest thousand entries, each as it came or its beginning, and how many came.

It is for operators to look at. Nothing in it ever goes back to a queue. An entry is a line of JSON that says where it
was found, when, why it was parked and how long it was, and after that line its bytes as they came.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import redis

if TYPE_CHECKING:
    from kombu import Connection
    from redis.client import Pipeline

LIST_KEY: Final = "undecodable"
COUNT_KEY: Final = "undecodable_count"
LIST_LIMIT: Final = 1_000
CONTENT_BYTES: Final = 16_384  # Enough to know it by; all of them together take 16 MB at most.


@dataclass(frozen=True, slots=True)
class Parked:
    """What was parked. `content` is the beginning of what came; `size` is how many bytes all of it was."""

    queue: str
    reason: str
    size: int
    parked_at: datetime
    content: bytes


def count(connection: Connection) -> int:
    """Return how many were ever parked, those included that have left the list."""
    client, prefix = _client_and_prefix(connection)
    return int(client.get(f"{prefix}{COUNT_KEY}") or 0)


def newest(connection: Connection, limit: int = 20) -> list[Parked]:
    """Return what was parked last, the newest first, at most `limit` of them."""
    client, prefix = _client_and_prefix(connection)
    return [_parked(entry) for entry in client.lrange(f"{prefix}{LIST_KEY}", 0, limit - 1)] if limit > 0 else []


def plain_client(channel: Any) -> redis.Redis:
    """Return a client that takes keys as they are; kombu's own adds its prefix to some commands and not to others."""
    return redis.Redis(connection_pool=channel.pool)


def add(pipe: Pipeline, prefix: str, queue: str, item: bytes, reason: str) -> None:
    """Add to a transaction what parks an entry found in `queue`, counts it, and drops what the list has no room for.

    Args:
        pipe: of a plain client, after MULTI.
        prefix: of all keys of the broker.
        queue: where it was found.
        item: all of it.
        reason: why it was parked, in words that are not from the entry.
    """
    parked_at = datetime.now(UTC).isoformat(timespec="seconds")
    told = json.dumps({"queue": queue, "reason": reason, "size": len(item), "parked_at": parked_at})
    pipe.lpush(f"{prefix}{LIST_KEY}", b"\n".join([told.encode(), item[:CONTENT_BYTES]]))
    pipe.ltrim(f"{prefix}{LIST_KEY}", 0, LIST_LIMIT - 1)
    pipe.incr(f"{prefix}{COUNT_KEY}")


def _client_and_prefix(connection: Connection) -> tuple[Any, str]:
    channel: Any = connection.default_channel
    return plain_client(channel), channel.global_keyprefix


def _parked(entry: bytes) -> Parked:
    told, _, content = entry.partition(b"\n")
    fields = json.loads(told)
    return Parked(
        queue=fields["queue"],
        reason=fields["reason"],
        size=fields["size"],
        parked_at=datetime.fromisoformat(fields["parked_at"]),
        content=content,
    )
