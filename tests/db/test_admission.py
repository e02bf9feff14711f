"""A place before a hot variant: few at once, in order of arrival, and whoever dies does not keep the others out."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis

import db.redis
from db import reservations
from db.errors import InvalidId, InvalidLimit, InvalidWait, VariantBusy
from db.reservations import admission
from db.settings import settings
from tests.broker import own_broker
from tests.concurrency.crowd import crowd
from tests.db.sql import eventually
from tests.processes import python, run

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.concurrency.crowd import Member

VARIANT = 7
PLACES, WAITERS, ALIVE = (f"harbor:slot:{{{VARIANT}}}:{name}" for name in ("places", "waiters", "alive"))
A_MINUTE = timedelta(minutes=1)
SOON = timedelta(milliseconds=50)
DEADLINE_SECONDS = 30


@pytest.fixture
def cache(database: None, servers: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    """An empty cache of this test's own. Leases last longer than any test, unless it says otherwise."""
    with own_broker(servers) as own:
        monkeypatch.setenv("HARBOR_CACHE_URL", own.url)
        settings.cache_clear()
        monkeypatch.setattr(admission, "_LEASE_MS", 60_000)
        monkeypatch.setattr(admission, "_away_until", 0.0)
        yield own.client
        db.redis.cache().close()
    settings.cache_clear()


def everything(cache: Redis) -> dict[bytes, Any]:
    """Who is in which of the three sets. Nobody has a list while these are looked at."""
    return {key: cache.zrange(key, 0, -1) for key in sorted(cache.scan_iter("harbor:*"))}


def wait_for_waiters(cache: Redis, number: int) -> None:
    eventually(lambda: cache.zcard(WAITERS) == number)


def now(cache: Redis) -> int:
    seconds, microseconds = cache.time()
    return seconds * 1_000_000 + microseconds


def go_in(wait: timedelta = A_MINUTE) -> None:
    with reservations.slot(VARIANT, places=1, wait=wait):
        pass


# ---- few at once -----------------------------------------------------------------------------------------------------


def visit(places: int) -> int:
    """Go in, stay until the gate is open, and return how many were inside when this one came."""
    with (
        Redis.from_url(settings().cache_url.get_secret_value()) as client,
        reservations.slot(VARIANT, places=places, wait=A_MINUTE),
    ):
        inside = int(client.incr("inside"))
        eventually(lambda: bool(client.exists("gate")))
        client.decr("inside")
    return inside


def visits(buyers: int, places: int) -> int:
    """Let so many threads visit, and return how many were inside at most."""
    with ThreadPoolExecutor(buyers) as threads:
        return max(threads.map(visit, [places] * buyers))


def visits_of_a_process(_member: Member, buyers: int, places: int) -> int:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(admission, "_LEASE_MS", 60_000)
        return visits(buyers, places)


@pytest.mark.parametrize(("places", "most"), [(3, 3), pytest.param(1_000, 24, id="a place for everybody")])
def test_threads_of_several_processes_are_never_more_than_the_places(cache: Redis, places: int, most: int) -> None:
    with crowd(3) as people:
        running = [people.start(visits_of_a_process, 8, places) for _ in range(people.size)]
        eventually(lambda: cache.get("inside") == str(most).encode())
        wait_for_waiters(cache, 24 - most)
        cache.set("gate", "open")
        seen = [process.result(DEADLINE_SECONDS) for process in running]

    assert max(seen) == most
    assert everything(cache) == {}


@pytest.mark.parametrize("enough", [True, False])
def test_far_more_than_a_hundred_threads_of_one_process_can_wait(
    cache: Redis, monkeypatch: pytest.MonkeyPatch, enough: bool
) -> None:
    if not enough:
        monkeypatch.setattr(db.redis, "_MAX_CONNECTIONS", 100)
        db.redis._client.cache_clear()

    with ThreadPoolExecutor(1) as threads:
        visitors = threads.submit(visits, 120, 1)
        if enough:
            wait_for_waiters(cache, 119)
            cache.set("gate", "open")
        else:
            eventually(lambda: int(cache.get("inside") or 0) > 1)
            cache.set("gate", "open")
            # Who finds no connection to say that it leaves has its place for a minute.
            eventually(lambda: cache.delete(PLACES) == 0 and visitors.done())
        seen = visitors.result(DEADLINE_SECONDS)

    assert (seen == 1) is enough


def test_one_variant_does_not_wait_for_another(cache: Redis) -> None:
    with reservations.slot(VARIANT, places=1), reservations.slot(VARIANT + 1, places=1, wait=SOON):
        assert cache.zcard(PLACES) == 1


def test_with_fewer_places_than_before_buyers_have_to_leave_first(cache: Redis) -> None:
    with ExitStack() as third, ExitStack() as second, reservations.slot(VARIANT, places=3):
        for stack in (second, third):
            stack.enter_context(reservations.slot(VARIANT, places=3))
        third.close()

        with pytest.raises(VariantBusy), reservations.slot(VARIANT, places=2, wait=SOON):
            pass
        second.close()
        with reservations.slot(VARIANT, places=2, wait=SOON):
            assert cache.zcard(PLACES) == 2


# ---- in order of arrival ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("by", "order"), [("now", [0, 1, 2, 3, 4]), ("-now", [4, 3, 2, 1, 0])])
def test_places_are_given_in_order_of_arrival(
    cache: Redis, monkeypatch: pytest.MonkeyPatch, by: str, order: list[int]
) -> None:
    monkeypatch.setattr(admission, "_ENTER", admission._ENTER.replace("'NX', now", f"'NX', {by}"))
    came: list[int] = []

    def come(number: int) -> None:
        with reservations.slot(VARIANT, places=1, wait=A_MINUTE):
            came.append(number)

    with ThreadPoolExecutor(5) as threads, reservations.slot(VARIANT, places=1):
        for number in range(5):
            threads.submit(come, number)
            wait_for_waiters(cache, number + 1)

    assert came == order


def test_who_gives_up_soon_does_not_push_out_those_who_wait_longer(cache: Redis) -> None:
    with ThreadPoolExecutor(1) as threads:
        with reservations.slot(VARIANT, places=1):
            patient = threads.submit(go_in)
            wait_for_waiters(cache, 1)
            before = everything(cache)
            with pytest.raises(VariantBusy):
                go_in(wait=SOON)
            assert everything(cache) == before
        patient.result(DEADLINE_SECONDS)


# ---- who dies, gives up or fails -------------------------------------------------------------------------------------


def stand(member: Member, lease_ms: int) -> None:
    """Stand in the place, or in the queue, until killed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(admission, "_LEASE_MS", lease_ms)
        with reservations.slot(VARIANT, places=1, wait=A_MINUTE):
            member.stand_still()


def test_the_place_of_a_killed_buyer_is_free_after_its_lease(cache: Redis) -> None:
    with crowd(1) as people:
        killed = people.start(stand, 300)
        eventually(lambda: cache.zcard(PLACES) == 1)
        killed.kill()

    go_in()


def test_until_its_lease_ends_a_killed_buyer_keeps_its_place(cache: Redis) -> None:
    with crowd(1) as people:
        killed = people.start(stand, 60_000)
        eventually(lambda: cache.zcard(PLACES) == 1)
        killed.kill()

    with pytest.raises(VariantBusy):
        go_in(wait=SOON)


@pytest.mark.parametrize("guarded", [True, False])
def test_killed_waiters_are_passed_over(cache: Redis, monkeypatch: pytest.MonkeyPatch, guarded: bool) -> None:
    if not guarded:
        monkeypatch.setattr(admission, "_LEAVE", admission._LEAVE.replace("== 1 then", ">= 0 then"))
    with ThreadPoolExecutor(1) as threads:
        with crowd(3) as people, reservations.slot(VARIANT, places=1):
            killed = [people.start(stand, 60_000) for _ in range(people.size)]
            wait_for_waiters(cache, people.size)
            dead: Any = cache.zrange(WAITERS, 0, -1)
            living = threads.submit(go_in)
            wait_for_waiters(cache, people.size + 1)
            for process in killed:
                process.kill()
            # As if their leases were over, which is when nobody has heard of them for so long.
            cache.zadd(ALIVE, dict.fromkeys(dead, now(cache)))

        if guarded:
            living.result(DEADLINE_SECONDS)
        else:
            with pytest.raises(VariantBusy):
                go_in(wait=SOON)
            cache.delete(PLACES)


def test_a_waiter_says_again_and_again_that_it_lives(cache: Redis) -> None:
    with ThreadPoolExecutor(1) as threads, reservations.slot(VARIANT, places=1):
        threads.submit(go_in)
        wait_for_waiters(cache, 1)
        ((_, believed_until),) = cache.zscan_iter(ALIVE)

        eventually(lambda: cache.zcount(ALIVE, f"({believed_until}", "+inf") == 1)


def test_who_waits_too_long_is_refused_and_leaves_nothing_behind(cache: Redis) -> None:
    with reservations.slot(VARIANT, places=1):
        before = everything(cache)
        with pytest.raises(VariantBusy) as refused:
            go_in(wait=SOON)
        assert everything(cache) == before

    assert refused.value.ids == {"variant_id": VARIANT}
    assert everything(cache) == {}


def test_who_fails_inside_leaves_all_the_same(cache: Redis) -> None:
    with pytest.raises(ZeroDivisionError), reservations.slot(VARIANT):
        raise ZeroDivisionError

    assert everything(cache) == {}


def test_who_is_interrupted_while_it_waits_leaves_the_queue(cache: Redis) -> None:
    waiting = threading.get_ident()

    def interrupt() -> None:
        wait_for_waiters(cache, 1)
        signal.pthread_kill(waiting, signal.SIGINT)

    with ThreadPoolExecutor(1) as threads, reservations.slot(VARIANT, places=1):
        threads.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            go_in()
        assert cache.zcard(WAITERS) == 0

    assert everything(cache) == {}


# ---- what gets lost --------------------------------------------------------------------------------------------------


def test_a_place_whose_message_was_lost_is_found_by_the_next_look(
    cache: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = ExitStack()
    holder.enter_context(reservations.slot(VARIANT, places=1))

    def hear_nothing(*_told: object) -> bool:
        holder.close()
        return False

    monkeypatch.setattr(admission._Place, "is_woken", hear_nothing)
    with reservations.slot(VARIANT, places=1):
        assert cache.zcard(PLACES) == 1

    assert everything(cache) == {}


@pytest.mark.parametrize("evicted", [[PLACES], [WAITERS], [ALIVE], [PLACES, WAITERS, ALIVE]])
def test_what_redis_forgets_keeps_nobody_out(cache: Redis, evicted: list[str]) -> None:
    with ThreadPoolExecutor(1) as threads:
        with reservations.slot(VARIANT, places=1):
            waiter = threads.submit(go_in)
            wait_for_waiters(cache, 1)
            cache.delete(*evicted)
            if PLACES in evicted:
                waiter.result(DEADLINE_SECONDS)
        waiter.result(DEADLINE_SECONDS)

    assert everything(cache) == {}


@pytest.mark.parametrize(("ahead_seconds", "is_let_in"), [(3_600, True), (30, False)])
def test_a_lease_given_before_the_clock_was_set_back_is_over(cache: Redis, ahead_seconds: int, is_let_in: bool) -> None:
    cache.zadd(PLACES, {"somebody": now(cache) + ahead_seconds * 1_000_000})

    if is_let_in:
        go_in(wait=SOON)
    else:
        with pytest.raises(VariantBusy):
            go_in(wait=SOON)


def test_everything_in_redis_ends_by_itself(cache: Redis) -> None:
    with ThreadPoolExecutor(1) as threads:
        with reservations.slot(VARIANT, places=1):
            waiter = threads.submit(go_in)
            wait_for_waiters(cache, 1)
            lives = [cache.pttl(key) for key in (PLACES, WAITERS, ALIVE)]
        waiter.result(DEADLINE_SECONDS)

    assert all(0 < life <= 60_000 for life in lives)


# ---- processes and input ---------------------------------------------------------------------------------------------

FORK = """
import os
from db import reservations

with reservations.slot(7):
    child = os.fork()
    with reservations.slot(8 if child else 9):
        pass
    if not child:
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_has_connections_of_its_own(cache: Redis) -> None:
    ended = run(python("-c", FORK), {**os.environ, "PYTHONWARNINGS": "error"})

    assert (ended.stdout, ended.stderr) == ("0\n", "")
    assert everything(cache) == {}


@pytest.mark.parametrize(
    ("told", "refused", "field"),
    [
        ({"variant_id": 0}, InvalidId, "variant_id"),
        ({"variant_id": "7"}, InvalidId, "variant_id"),
        ({"places": 0}, InvalidLimit, "places"),
        ({"places": 1_001}, InvalidLimit, "places"),
        ({"places": True}, InvalidLimit, "places"),
        ({"wait": timedelta(0)}, InvalidWait, "wait"),
        ({"wait": timedelta(seconds=61)}, InvalidWait, "wait"),
        ({"wait": 5}, InvalidWait, "wait"),
    ],
)
def test_nonsense_is_refused_and_asks_nobody(
    cache: Redis, told: dict[str, Any], refused: type[Exception], field: str
) -> None:
    with pytest.raises(refused) as error, reservations.slot(**{"variant_id": VARIANT, **told}):
        pass

    assert getattr(error.value, "ids", {})["field"] == field
    assert everything(cache) == {}
