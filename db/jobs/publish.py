"""What a relay takes from the ledger: jobs that are due, and again those whose message or worker seems to be lost.

Promise: a job that is due gets published, however often Redis or a relay dies, and a copy too many does no harm, since
the claim decides who runs it. Rows are leased in one short transaction and published after it: no lock is held while
Redis is waited for, so a Redis that stalls stalls nothing here.

A lease writes into `available_at` when the row is to be published again if nobody starts it, which doubles with each
time: workers that are merely behind would otherwise get the same jobs over and over.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from db.jobs.claim import BACKOFF, LOST

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from sqlalchemy.orm import Session

LEASE_LIMIT: Final = 500
FROZEN_MS: Final = 5_000
"""A relay that is frozen in the middle of a lease keeps its rows, and a queue with limits, from others for so long."""

_MOST_DOUBLINGS: Final = 6  # 10 s become 10 minutes; a queue that is longer gets each of its jobs again that often.


def queues_of(state: str) -> str:
    """Return a CTE of the queues that have rows in a state: one look into the index for each, and none at the rows."""
    return f"""
RECURSIVE found(queue) AS (
  (SELECT queue FROM jobs WHERE {state} ORDER BY queue LIMIT 1)
  UNION ALL
  SELECT (SELECT j.queue FROM jobs j WHERE {state} AND j.queue > found.queue ORDER BY j.queue LIMIT 1)
    FROM found WHERE found.queue IS NOT NULL)"""


READY: Final = "state = 'ready' AND NOT blocked"
# Each priority is a range of its own in the index, so that what is due later hides nothing that is due now.
_PRIORITIES: Final = "unnest('{0,1,2,3,4,5,6,7,8,9}'::smallint[]) AS p(priority)"
# Without the order a planner that knows of many due rows reads the table for a priority that has none: 7 s instead of
# less than one millisecond with a million rows (measured).
_DUE: Final = text(f"""
WITH {queues_of(READY)}
SELECT f.queue, c.queue IS NOT NULL AS controlled,
       set_config('idle_in_transaction_session_timeout', '{FROZEN_MS}', true)
  FROM found f LEFT JOIN queue_control c ON c.queue = f.queue
 WHERE f.queue IS NOT NULL AND c.paused IS NOT TRUE
   AND EXISTS (SELECT FROM {_PRIORITIES} CROSS JOIN LATERAL (
         SELECT FROM jobs j
          WHERE {READY} AND j.queue = f.queue AND j.priority = p.priority AND j.available_at <= statement_timestamp()
          ORDER BY j.available_at, j.id LIMIT 1) due)
 ORDER BY f.queue""")
_CANDIDATES: Final = text(f"""
SELECT j.id, j.ordering_key
  FROM {_PRIORITIES} CROSS JOIN LATERAL (
    SELECT id, ordering_key FROM jobs
     WHERE {READY} AND queue = :queue AND jobs.priority = p.priority AND available_at <= statement_timestamp()
     ORDER BY available_at, id
     LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) j
 LIMIT :limit""")
_HEADS: Final = text("""
SELECT k.key, coalesce(
         (SELECT id FROM jobs WHERE ordering_key = k.key AND state IN ('published', 'running')),
         (SELECT min(id) FROM jobs WHERE ordering_key = k.key AND state = 'ready')) AS head
  FROM unnest(CAST(:keys AS text[])) AS k(key)""")
_LOCK: Final = text("""
SELECT id FROM jobs
 WHERE id = ANY(:ids) AND state IN ('ready', 'published', 'running') ORDER BY id FOR NO KEY UPDATE SKIP LOCKED""")
_BLOCK: Final = text("UPDATE jobs SET blocked = true WHERE id = ANY(:ids)")
_PUBLISH: Final = text(f"""
UPDATE jobs
   SET state = 'published',
       available_at = statement_timestamp()
                      + make_interval(secs => :republish_seconds * power(2, least(publish_count, {_MOST_DOUBLINGS})))
 WHERE id = ANY(:ids)
RETURNING id, task_id, task, queue, priority, args::text, kwargs::text""")

_UNCOUNT: Final = text("""
UPDATE jobs SET publish_count = publish_count - 1,
                available_at = statement_timestamp() + make_interval(secs => :republish_seconds)
 WHERE task_id = ANY(:ids) AND state = 'published' AND publish_count > 0""")

_CONTROL: Final = text("""
SELECT paused, max_in_flight, rate_per_second,
       least(greatest(1, rate_per_second),
             tokens + rate_per_second * greatest(0, extract(epoch FROM statement_timestamp() - refilled_at))) AS tokens
  FROM queue_control WHERE queue = :queue FOR NO KEY UPDATE SKIP LOCKED""")
_IN_FLIGHT: Final = text("""
SELECT (SELECT count(*) FROM jobs WHERE state = 'published' AND queue = :queue)
     + (SELECT count(*) FROM jobs WHERE state = 'running' AND queue = :queue)""")
_SPEND: Final = text("""
UPDATE queue_control SET tokens = :tokens, refilled_at = statement_timestamp() WHERE queue = :queue""")

_SWEEP_PUBLISHED: Final = text(f"""
WITH {queues_of("state = 'published'")},
late AS MATERIALIZED (
  SELECT j.id FROM found CROSS JOIN LATERAL (
    SELECT id FROM jobs
     WHERE state = 'published' AND queue = found.queue AND available_at <= statement_timestamp()
       AND queue <> ALL (CAST(:spared AS text[]))
     ORDER BY available_at LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) j
   LIMIT :limit)
UPDATE jobs SET state = 'ready', available_at = statement_timestamp() FROM late WHERE jobs.id = late.id""")
_PUBLISHED: Final = text(f"""
WITH {queues_of("state = 'published'")}
SELECT f.queue, (SELECT count(*) FROM jobs WHERE state = 'published' AND queue = f.queue) AS jobs,
       extract(epoch FROM statement_timestamp() - f.first)::float8 AS overdue_seconds,
       (SELECT count(*) FROM jobs WHERE state = 'running') AS running
  FROM (SELECT found.queue,
               (SELECT min(available_at) FROM jobs WHERE state = 'published' AND queue = found.queue) AS first
          FROM found WHERE found.queue IS NOT NULL) f
 WHERE f.first <= statement_timestamp()""")
_SWEEP_RUNNING: Final = text(f"""
WITH {queues_of("state = 'running'")},
lost AS MATERIALIZED (
  SELECT j.id FROM found CROSS JOIN LATERAL (
    SELECT id FROM jobs
     WHERE state = 'running' AND queue = found.queue AND lease_until <= statement_timestamp()
     ORDER BY lease_until LIMIT :limit FOR NO KEY UPDATE SKIP LOCKED) j
   LIMIT :limit),
swept AS (
  UPDATE jobs
     SET state = CASE WHEN cancel_requested THEN 'cancelled' WHEN attempt >= max_attempts THEN 'dead' ELSE 'ready' END,
         available_at = statement_timestamp() + make_interval(secs => {BACKOFF})
    FROM lost WHERE jobs.id = lost.id
  RETURNING jobs.id, jobs.attempt, jobs.state)
INSERT INTO job_attempts (job_id, attempt, outcome, error)
SELECT id, attempt, 'lost', '{LOST}' FROM swept""")

# A net under the trigger, which unblocks the next job of a key: one that ends in a stricter transaction than READ
# COMMITTED does not see a block that is younger than its snapshot.
_SWEEP_BLOCKED: Final = text("""
WITH RECURSIVE found(key) AS (
  (SELECT min(ordering_key) FROM jobs WHERE blocked)
  UNION ALL
  SELECT (SELECT min(j.ordering_key) FROM jobs j WHERE j.blocked AND j.ordering_key > found.key)
    FROM found WHERE found.key IS NOT NULL),
first AS (
  SELECT found.key, (SELECT min(j.id) FROM jobs j WHERE j.blocked AND j.ordering_key = found.key) AS id FROM found)
UPDATE jobs SET blocked = false
 WHERE id IN (
   SELECT jobs.id FROM jobs JOIN first ON jobs.id = first.id
    WHERE jobs.blocked
      AND NOT EXISTS (SELECT FROM jobs j WHERE j.ordering_key = first.key AND j.state IN ('published', 'running'))
      AND NOT EXISTS (SELECT FROM jobs j WHERE j.ordering_key = first.key AND j.state = 'ready' AND j.id < first.id)
    LIMIT :limit FOR NO KEY UPDATE OF jobs SKIP LOCKED)""")
SWEEPS: Final = {"never_started": _SWEEP_PUBLISHED, "lease_expired": _SWEEP_RUNNING, "unblocked": _SWEEP_BLOCKED}
"""Each is a transaction of its own in a relay, so that one that fails keeps no other from its work."""


@dataclass(frozen=True, slots=True)
class Message:
    """What a relay publishes for one row; `args` and `kwargs` are JSON."""

    task_id: UUID
    task: str
    queue: str
    priority: int
    args: str
    kwargs: str


@dataclass(frozen=True, slots=True)
class Overdue:
    """A queue in which a job should have started: `jobs` are published there, and `running` is of all queues.

    `overdue_seconds` is how long ago the first of them should have started.
    """

    queue: str
    jobs: int
    overdue_seconds: float
    running: int


@dataclass(frozen=True, slots=True)
class Swept:
    """How many rows a sweep has let be published again: never started, or left behind by their workers.

    `unblocked` waited for their turn although it was theirs.
    """

    never_started: int
    lease_expired: int
    unblocked: int


def lease(session: Session, republish_seconds: float, limit: int = LEASE_LIMIT) -> list[Message]:
    """Mark up to `limit` due jobs as published, commit that, and then send what this returned, in its order.

    Queues share the limit evenly, and within one the lower priority number goes first. What two relays want at the same
    time one gets and the other passes over.

    Args:
        session: a transaction of its own.
        republish_seconds: how long a job may stay unstarted before it is published again.
        limit: at most so many.
    """
    queues = session.execute(_DUE).all()
    messages: list[Message] = []
    for place, (queue, controlled, _) in enumerate(queues):
        share = -(-(limit - len(messages)) // (len(queues) - place))
        if controlled:
            messages += _lease_controlled(session, queue, share, republish_seconds)
        else:
            messages += _lease_from(session, queue, share, republish_seconds)
    return messages


def sweep(session: Session, limit: int = 1_000) -> Swept:
    """Let jobs be published again that nobody has started for long, or whose worker said nothing until its lease ended.

    Those whose attempts are used up are dead. Call it again until the first two counts are below `limit`.
    """
    return Swept(**{name: sweep_one(session, name, limit) for name in SWEEPS})


def sweep_one(session: Session, name: str, limit: int = 1_000, spared: Sequence[str] = ()) -> int:
    """Do one of `SWEEPS` and return how many rows it changed; with fewer than `limit` it is through.

    Args:
        session: a transaction of its own.
        name: which one.
        limit: at most so many rows.
        spared: queues whose messages are known to be where they belong; what waits there is late and not lost.
    """
    told: dict[str, Any] = {"limit": limit}
    if name == "never_started":
        told["spared"] = list(spared)
    swept: Any = session.execute(SWEEPS[name], told)
    return int(swept.rowcount)


def overdue(session: Session) -> list[Overdue]:
    """Return the queues in which a job is published and should have started by now."""
    rows = session.execute(_PUBLISHED).mappings()
    return [Overdue(**row) for row in rows]


def uncount(session: Session, messages: Sequence[Message], republish_seconds: float) -> None:
    """Forget that these were published, since nobody knows whether they were; the sweep then looks at them again."""
    told = {"ids": [message.task_id for message in messages], "republish_seconds": republish_seconds}
    session.execute(_UNCOUNT, told)


def _lease_controlled(session: Session, queue: str, limit: int, republish_seconds: float) -> list[Message]:
    """Lease from a queue that has limits, with its row locked, so that relays do not exceed them together."""
    control = session.execute(_CONTROL, {"queue": queue}).one_or_none()
    if control is None or control.paused:
        return []
    if control.max_in_flight is not None:
        limit = min(limit, control.max_in_flight - session.execute(_IN_FLIGHT, {"queue": queue}).scalar_one())
    if control.rate_per_second is not None:
        limit = min(limit, int(control.tokens))
    if limit <= 0:
        return []
    messages = _lease_from(session, queue, limit, republish_seconds)
    if control.rate_per_second is not None:
        session.execute(_SPEND, {"queue": queue, "tokens": control.tokens - len(messages)})
    return messages


def _lease_from(session: Session, queue: str, limit: int, republish_seconds: float) -> list[Message]:
    candidates = session.execute(_CANDIDATES, {"queue": queue, "limit": limit}).all()
    waiting = _wait_for_their_turn(session, {id_: key for id_, key in candidates if key is not None})
    ids = [id_ for id_, _ in candidates if id_ not in waiting]
    if not ids:
        return []
    rows = session.execute(_PUBLISH, {"ids": ids, "republish_seconds": republish_seconds})
    found = {id_: Message(*told) for id_, *told in rows}
    return [found[id_] for id_ in ids]


def _wait_for_their_turn(session: Session, keyed: dict[int, str]) -> set[int]:
    """Return which of these jobs wait for an older one of their ordering key, and block them.

    A blocked row has left the index that relays read, so a key with many jobs costs each of them one look. Blocking it
    takes the lock of the row that it waits for: whoever ends that row either still sees the block and lifts it, or has
    ended it before, and then it is not blocked at all.
    """
    if not keyed:
        return set()
    heads = {row.key: row.head for row in session.execute(_HEADS, {"keys": sorted(set(keyed.values()))})}
    waiting = {id_: heads[key] for id_, key in keyed.items() if heads[key] != id_}
    if waiting:
        locked = set(keyed) | set(session.scalars(_LOCK, {"ids": sorted(set(waiting.values()) - set(keyed))}))
        blocked: Sequence[int] = [id_ for id_, head in waiting.items() if head in locked]
        if blocked:
            session.execute(_BLOCK, {"ids": blocked})
    return set(waiting)
