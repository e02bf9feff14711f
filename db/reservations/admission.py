"""One of few places before a hot variant: a thousand buyers at once sell as fast as eight.

The more transactions wait for one row, the slower PostgreSQL hands it from one to the next: 808 orders a second with 8
clients were 397 with 64 and 247 with 150 (docs/decisions/0003). So the others wait before their transaction begins, in
order of arrival, in Redis. Redis decides nothing here: what it forgets, or when it is away, lets more people in, which
is slow and right.

Who leaves gives the place to the next waiter directly, by a list that only this one waits for, so each buyer costs two
calls, or three when it waits. A waiter looks again every half second whether it is still in the queue: so a lost
message costs no more than that, and a waiter that died is known by its silence.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from uuid import uuid4

import redis

from db.checks import checked_id, checked_limit
from db.errors import InvalidWait, VariantBusy
from db.log import warn
from db.redis import SOCKET_TIMEOUT_SECONDS, cache
from db.reservations.request import duration_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

PLACES: Final = 8
"""Four for each core of a small database server. With twice as many orders a second begin to fall (decision 0003)."""

DEFAULT_WAIT: Final = timedelta(seconds=5)
_LONGEST_WAIT: Final = timedelta(minutes=1)
_LEASE_MS: Final = 2_000  # A buyer needs milliseconds. One that dies keeps its place for no longer than this.
_LOOK_SECONDS: Final = SOCKET_TIMEOUT_SECONDS / 2  # Well within the lease, and no longer than a socket may be silent.
_SHORTEST_LOOK_SECONDS: Final = 0.01  # Redis before 7 rounds less than a millisecond down to 0, which is for ever.
_AWAY_SECONDS: Final = 1.0  # How long Redis is left alone after it failed, so that not every buyer waits for it.

# KEYS: the places by the end of their lease, the waiters by their arrival, the same by when they count as dead.
# ARGV: how many places, the lease in ms, the prefix of the lists that wake, who asks. Times are the server's, in µs.
# A lease that ends too far away was given before its clock was set back.
_TURNS: Final = """
local places, lease_ms, wake, who = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local until_ = now + lease_ms * 1000
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREMRANGEBYSCORE', KEYS[1], until_ + 1, '+inf')
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now)
local function let_in()
  while redis.call('ZCARD', KEYS[1]) < places do
    local first = redis.call('ZPOPMIN', KEYS[2])[1]
    if not first then return end
    if redis.call('ZREM', KEYS[3], first) == 1 then
      redis.call('ZADD', KEYS[1], until_, first)
      redis.call('PEXPIRE', KEYS[1], lease_ms)
      if first ~= who then
        redis.call('RPUSH', wake .. first, 1)
        redis.call('PEXPIRE', wake .. first, lease_ms)
      end
    end
  end
end
"""
# Whoever comes queues up, and may be the first of the queue at once. The same call again says that it is still there.
_ENTER: Final = (
    _TURNS
    + """
if not redis.call('ZSCORE', KEYS[1], who) then
  redis.call('ZADD', KEYS[2], 'NX', now, who)
  redis.call('PEXPIRE', KEYS[2], lease_ms)
  redis.call('ZADD', KEYS[3], until_, who)
  redis.call('PEXPIRE', KEYS[3], lease_ms)
  let_in()
end
return redis.call('ZSCORE', KEYS[1], who) and 1 or 0
"""
)
# Also for one who gives up waiting: it may have been let in at this very moment.
_LEAVE: Final = (
    _TURNS
    + """
for _, key in ipairs(KEYS) do redis.call('ZREM', key, who) end
redis.call('DEL', wake .. who)
let_in()
"""
)

_away_until = 0.0  # By time.monotonic(); 0 while Redis answers.


@contextmanager
def slot(variant_id: int, *, places: int = PLACES, wait: timedelta = DEFAULT_WAIT) -> Iterator[None]:
    """Have one of the places before a hot variant for the length of the block. Enter it before `transaction()`.

    An order of several hot variants takes the place of the hottest one. Without Redis everybody is let in.

    Args:
        variant_id: the variant that everybody wants.
        places: how many may be inside at once; the same number everywhere.
        wait: how long to wait for a place, up to a minute.

    Raises:
        InvalidInput: an argument is out of range.
        VariantBusy: no place became free in time; the queue is longer than the shop can serve.
    """
    place = _Place.of(checked_id("variant_id", variant_id), checked_limit("places", places, most=1_000), wait)
    asked = not _is_away()
    try:
        asked = asked and _enter(place)
        yield
    finally:
        if asked:
            _leave(place)


@dataclass(frozen=True, slots=True)
class _Place:
    variant_id: int
    places: int
    wait_seconds: float
    who: str

    @classmethod
    def of(cls, variant_id: int, places: int, wait: timedelta) -> _Place:
        if problem := duration_problem(wait, _LONGEST_WAIT):
            raise InvalidWait(field="wait", variant_id=variant_id, **problem)
        return cls(variant_id, places, wait.total_seconds(), uuid4().hex)

    def key(self, name: str) -> str:
        # The braces keep all keys of a variant on one node of a cluster.
        return f"harbor:slot:{{{self.variant_id}}}:{name}"

    def call(self, script: str) -> int:
        """Run one of the scripts. One that the server has forgotten is sent again."""
        global _away_until  # noqa: PLW0603 - one Redis per process, which is away or is not
        keys = [self.key(name) for name in ("places", "waiters", "alive")]
        told: list[int | str] = [self.places, _LEASE_MS, self.key("wake:"), self.who]
        answer: int = cache().register_script(script)(keys=keys, args=told)
        _away_until = 0.0
        return answer

    def is_woken(self, seconds: float) -> bool:
        """Wait until the place is handed over, or `seconds` have passed."""
        timeout = max(_SHORTEST_LOOK_SECONDS, min(seconds, _LOOK_SECONDS))
        return cache().blpop([self.key(f"wake:{self.who}")], timeout=timeout) is not None


def _enter(place: _Place) -> bool:
    """Return True with a place, False when Redis is away. Raises VariantBusy."""
    ends = time.monotonic() + place.wait_seconds
    try:
        while not place.call(_ENTER):
            left = ends - time.monotonic()
            if left <= 0:
                raise VariantBusy(variant_id=place.variant_id)
            if place.is_woken(left):
                break
    except redis.RedisError as error:
        _away(place, error)
        return False
    return True


def _leave(place: _Place) -> None:
    try:
        place.call(_LEAVE)
    except redis.RedisError as error:
        # The order is committed; the place ends with its lease.
        _away(place, error)


def _is_away() -> bool:
    """Whether to leave Redis alone. After a while one buyer asks whether it is back, and the others go on meanwhile."""
    global _away_until  # noqa: PLW0603
    now = time.monotonic()
    if now < _away_until:
        return True
    if _away_until:
        _away_until = now + _AWAY_SECONDS
    return False


def _away(place: _Place, error: redis.RedisError) -> None:
    """Leave Redis alone from now on, and say so once."""
    global _away_until  # noqa: PLW0603
    if not _away_until:
        warn(__name__, "slot.redis_is_away", variant_id=place.variant_id, kind=type(error).__name__)
    _away_until = time.monotonic() + _AWAY_SECONDS
