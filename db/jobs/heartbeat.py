"""A thread that keeps this process's leases alive while its jobs run, and stops a job that is not ours any more.

A lease is three beats long, so that two may fail. A beat that waits for a lock gives up soon: whoever holds the row is
committing for this very job, and it is still ours.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from psycopg.errors import LockNotAvailable
from sqlalchemy import text
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from db import engine
from db.errors import JobCancelled, JobLeaseLost
from db.log import warn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from db.jobs.claim import Claim

BEATS_PER_LEASE: Final = 3
_LOCK_TIMEOUT: Final = text("SET LOCAL lock_timeout = '500ms'")


class Interrupted(BaseException):
    """Raised by the heartbeat in the middle of a task whose job was cancelled or is another's.

    No task should catch it, which is why it is no Exception.
    """


class Heartbeat:
    """Beats for all claims of this process. Forked children have threads of their own."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease_seconds = lease_seconds
        self._claims: dict[Claim, int] = {}
        self._changing = threading.Lock()
        self._pid = os.getpid()
        self._ended = threading.Event()
        threading.Thread(target=self._run, name="harbor-heartbeat", daemon=True).start()

    @property
    def alive(self) -> bool:
        """Whether it beats in this process: a fork takes the object along and not the thread."""
        return self._pid == os.getpid() and not self._ended.is_set()

    def end(self) -> None:
        """Stop beating."""
        self._ended.set()

    @contextmanager
    def beating(self, claim: Claim) -> Iterator[None]:
        """Keep a claim's lease alive during the block; raises Interrupted in it when it should stop."""
        thread_id = threading.get_ident()
        with self._changing:
            self._claims[claim] = thread_id
        try:
            yield
        finally:
            with self._changing:
                self._claims.pop(claim, None)
                stopped = claim.stop is not None
            if stopped:
                _let_it_arrive()

    def _run(self) -> None:
        while not self._ended.wait(self._lease_seconds / BEATS_PER_LEASE):
            with self._changing:
                claims = list(self._claims)
            for claim in claims:
                self._beat(claim)

    def _beat(self, claim: Claim) -> None:
        try:
            with Session(engine.engine()) as session, session.begin():
                session.execute(_LOCK_TIMEOUT)
                claim.extend(session, self._lease_seconds)
        except (JobCancelled, JobLeaseLost) as reason:
            self._stop(claim, type(reason))
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                warn(__name__, "job.beat_failed", task_id=str(claim.task_id), error=type(error.orig).__name__)
        except SQLAlchemyError as error:
            warn(__name__, "job.beat_failed", task_id=str(claim.task_id), error=type(error).__name__)

    def _stop(self, claim: Claim, reason: type[JobCancelled | JobLeaseLost]) -> None:
        with self._changing:
            # A job that has just completed is not running any more, which is no reason to stop anybody.
            if claim in self._claims and not claim.completed:
                claim.stop = reason
                # It is forgotten here: the thread may be told at the very moment at which it leaves the block.
                _raise_in(self._claims.pop(claim), Interrupted)


def _raise_in(thread_id: int, kind: type[BaseException]) -> None:
    """Let a thread raise at its next call or jump. A call into C is over first."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread_id), ctypes.py_object(kind))


def _let_it_arrive() -> None:
    """Let what this thread was told to raise, and has not raised yet, arrive here and not after the block.

    Taking it back instead would leave Python 3.11 looking for it at every call for ever: a profiler then never returns.
    """
    with suppress(Interrupted):
        for _ in range(3):
            time.sleep(0)


_owned: Heartbeat | None = None
_making = threading.Lock()


def _after_fork() -> None:
    """Give a forked child a lock of its own: the parent's may be held by a thread that the child does not have."""
    global _making, _owned
    _making, _owned = threading.Lock(), None


os.register_at_fork(after_in_child=_after_fork)


def heartbeat(lease_seconds: float) -> Heartbeat:
    """Return this process's heartbeat; the first call starts its thread."""
    global _owned  # noqa: PLW0603 - one per process is the promise
    with _making:
        if _owned is None or not _owned.alive:
            _owned = Heartbeat(lease_seconds)
        return _owned
