"""What can happen to processes and servers, drawn from a seed: a deck of faults, shuffled, dealt one by one."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import redis

from tests.broker import Broker
from tests.processes import wait_until

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable, Iterator, Sequence

    import stack
    from tests.concurrency.fleet import Fleet, Member
    from tests.concurrency.wires import Wire

_STOPPED_SECONDS = (1.0, 4.0)  # Some are longer than a lease, and some are not.
_FROZEN_SECONDS = 8.0  # Longer than a lease and the time between two sweeps.
_SLOW_SECONDS = 3.0
_DELAY_SECONDS = 0.002
_WAITING_SECONDS = 1
_BUSY_SECONDS = 30


class Faults:
    """Faults of a fleet and its servers. `told` is what happened, each with its second."""

    def __init__(
        self, draw: random.Random, fleet: Fleet, servers: stack.Stack, *, database: Wire, broker: Wire
    ) -> None:
        self._draw = draw
        self._fleet = fleet
        self._servers = servers
        self._database_wire = database
        self._broker_wire = broker
        url = servers.environ["HARBOR_BROKER_URL"]
        self._redis = redis.Redis.from_url(url)
        self.broker = Broker(url, self._redis)
        self._raging = True
        self._frozen_until: dict[int, float] = {}
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._began = time.monotonic()
        self.told: list[str] = []

    @property
    def all(self) -> list[Callable[[], str]]:
        """Every fault; which process it meets is drawn when it happens."""
        return [
            *(self.kill_worker, self.kill_parent, self.kill_child, self.kill_child, self.end_worker),
            *(self.stop_worker, self.stop_child, self.stop_child, self.flush_what_waits),
            *(self.kill_relay, self.stop_relay, self.kill_beat, self.stop_beat),
            *(self.flush, self.drop_clients, self.empty_redis, self.restart_redis),
            *(self.restart_postgres, self.cut_database, self.slow_database, self.slow_broker),
        ]

    def rage(self, seconds: float, every_seconds: float, stop: threading.Event, deck: Sequence[str] = ()) -> None:
        """Let faults happen for so long, or until `stop`; then everything is as it should be."""
        end = time.monotonic() + seconds
        for fault in self._dealt(deck):
            due = time.monotonic() + every_seconds
            if due > end or stop.is_set():
                break
            self._fleet.look_after()
            self.told.append(f"{time.monotonic() - self._began:5.1f} s  {fault()}")
            while (left := due - time.monotonic()) > 0 and not stop.wait(min(left, 0.1)):
                self._make_up()
        self._raging = False
        self._make_up(at=float("inf"))
        self._redis.close()

    def _dealt(self, names: Sequence[str]) -> Iterator[Callable[[], str]]:
        """Deal the whole deck before any fault comes again."""
        while True:
            deck = [getattr(self, name) for name in names] or self.all
            self._draw.shuffle(deck)
            yield from deck

    def _make_up(self, at: float | None = None) -> None:
        now = time.monotonic() if at is None else at
        due = [what for when, what in self._later if when <= now]
        self._later = [(when, what) for when, what in self._later if when > now]
        for what in due:
            what()

    def fell_the_busy(self) -> None:
        """Kill one worker and freeze the other, both in the middle of a job, until that has been given to another."""
        killed, frozen = self._fleet.of("worker")
        wait_until(
            lambda: all(set(self._fleet.busy_children()) & set(it.children()) for it in (killed, frozen)), _BUSY_SECONDS
        )
        self._freeze(frozen, _FROZEN_SECONDS)
        self._fleet.kill(killed)
        self.told.append(f"before all: {killed.name} killed and {frozen.name} frozen, both busy")

    # ---- Processes -------------------------------------------------------------------------------------------------

    def kill_worker(self) -> str:
        return self._kill("worker")

    def kill_relay(self) -> str:
        return self._kill("relay")

    def kill_beat(self) -> str:
        return self._kill("beat")

    def stop_worker(self) -> str:
        return self._stop("worker")

    def stop_relay(self) -> str:
        return self._stop("relay")

    def stop_beat(self) -> str:
        return self._stop("beat")

    def kill_parent(self) -> str:
        """What its children are at, they may bring to an end or not."""
        member = self._one("worker")
        member.process.popen.kill()
        self._fleet.replace(member)
        return f"parent of {member.name} killed"

    def end_worker(self) -> str:
        member = self._one("worker")
        member.process.popen.terminate()
        self._fleet.replace(member)
        return f"{member.name} asked to end"

    def kill_child(self) -> str:
        return self._of_a_child(signal.SIGKILL)

    def stop_child(self) -> str:
        return self._of_a_child(signal.SIGSTOP)

    def flush_what_waits(self, enqueue: Callable[[], object] | None = None) -> str:
        """Empty Redis while messages wait in it, because no worker takes them."""
        for member in self._fleet.of("worker"):
            member.send(signal.SIGSTOP)
        if enqueue is not None:
            enqueue()
        with suppress(AssertionError):  # There may be nothing to do just now.
            wait_until(self.broker.lengths, _WAITING_SECONDS)
        waited = sum(self.broker.lengths().values())
        self.flush()
        for member in self._fleet.of("worker"):
            self._thaw(member.process.popen.pid)
        return f"Redis flushed with {waited} messages that no worker takes"

    def _one(self, role: str) -> Member:
        return self._draw.choice(self._fleet.of(role))

    def _kill(self, role: str) -> str:
        member = self._one(role)
        self._fleet.kill(member)
        return f"{member.name} killed"

    def _stop(self, role: str) -> str:
        member = self._one(role)
        seconds = self._draw.uniform(*_STOPPED_SECONDS)
        self._freeze(member, seconds)
        return f"{member.name} stopped for {seconds:.1f} s"

    def _freeze(self, member: Member, seconds: float) -> None:
        pid = member.process.popen.pid
        member.send(signal.SIGSTOP)
        self._frozen_until[pid] = max(self._frozen_until.get(pid, 0), time.monotonic() + seconds)
        self._after(seconds, lambda: self._thaw(pid))

    def _thaw(self, pid: int) -> None:
        """Let a process and what it has started go on, unless it was frozen for longer by another fault."""
        if self._raging and time.monotonic() < self._frozen_until.get(pid, 0):
            return
        _signal(os.killpg, pid, signal.SIGCONT)

    def _of_a_child(self, number: int) -> str:
        """Do something to a child, which is in the middle of a job's transaction if there is one in time."""
        seconds, place = self._draw.uniform(*_STOPPED_SECONDS), self._draw.random()
        with suppress(AssertionError):
            wait_until(self._fleet.busy_children, _WAITING_SECONDS)
        busy = self._fleet.busy_children()
        children = busy or self._fleet.children()
        if not children:
            return "no worker has a child yet"
        pid = children[int(place * len(children))]
        called = f"{'busy' if busy else 'idle'} child {pid}"
        _signal(os.kill, pid, number)
        if number == signal.SIGKILL:
            return f"{called} killed"
        self._after(seconds, lambda: _signal(os.kill, pid, signal.SIGCONT))
        return f"{called} stopped for {seconds:.1f} s"

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, what))

    # ---- Servers ---------------------------------------------------------------------------------------------------

    def flush(self) -> str:
        self._redis.flushall()
        return "Redis flushed"

    def drop_clients(self) -> str:
        self._redis.client_kill_filter(_type="normal", skipme=True)
        return "clients of Redis dropped"

    def empty_redis(self) -> str:
        self._servers.restart_redis(empty=True, immediate=self._draw.random() < 0.5)
        return "Redis restarted empty"

    def restart_redis(self) -> str:
        self._servers.restart_redis(empty=False)
        return "Redis restarted"

    def restart_postgres(self) -> str:
        immediate = self._draw.random() < 0.5
        self._servers.restart_postgres(immediate=immediate)
        return f"PostgreSQL {'crashed' if immediate else 'restarted'}"

    def cut_database(self) -> str:
        self._database_wire.cut()
        return "connections to PostgreSQL cut"

    def slow_database(self) -> str:
        return self._slow(self._database_wire, "PostgreSQL")

    def slow_broker(self) -> str:
        return self._slow(self._broker_wire, "Redis")

    def _slow(self, wire: Wire, name: str) -> str:
        wire.delay_seconds = _DELAY_SECONDS
        self._after(_SLOW_SECONDS, lambda: setattr(wire, "delay_seconds", 0.0))
        return f"{name} 2 ms away for {_SLOW_SECONDS:g} s"


def _signal(send: Callable[[int, int], None], pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        send(pid, number)
