"""`celery -A tests.worker.job_tasks worker`: tasks whose jobs end in every way that there is.

Each leaves a row when it starts, whatever becomes of it, and another one as its effect.
"""

from __future__ import annotations

import datetime as dt
import os
import signal
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID

import structlog
from kombu.transport import redis as kombu_redis
from sqlalchemy import text

from db import engine
from db.errors import VariantNotFound
from db.failpoints import reach
from db.jobs import Discard, Snooze
from db.session import transaction
from db.statements import current
from tasks.declare import task
from tests.ledger import act
from worker.celery import app

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app"]

log = structlog.get_logger()

# The 25 s of celeryconfig are too long for a test that waits for them.
app.conf.worker_soft_shutdown_timeout = float(os.environ["SAMPLE_SOFT_SHUTDOWN_SECONDS"])

_take: Callable[..., Any] = kombu_redis.QoS.append


def _taken(self: kombu_redis.QoS, message: Any, delivery_tag: Any) -> None:
    # Between BRPOP, which takes a message off its queue, and the statement that keeps it as unacknowledged.
    reach("worker.taken")
    _take(self, message, delivery_tag)


kombu_redis.QoS.append = _taken  # type: ignore[method-assign]


def _job() -> UUID:
    """The job that is run here."""
    scope = current.get()
    assert scope is not None
    assert scope.claim is not None
    return scope.claim.task_id


def _starts() -> int:
    """Leave a row that says that the task has started, and return how many there are; no transaction() of the job's."""
    told = {"id": str(_job())}
    with engine.engine().begin() as connection:
        connection.execute(
            text("INSERT INTO operator_actions (actor, action, subject) VALUES ('job', 'run', :id)"), told
        )
        counted = "SELECT count(*) FROM operator_actions WHERE action = 'run' AND subject = :id"
        return int(connection.execute(text(counted), told).scalar_one())


def _have_effect() -> None:
    with transaction() as session:
        act(session, _job())


@task("job.effect")
def effect() -> None:
    _starts()
    _have_effect()


@task("job.nothing")
def nothing() -> None:
    _starts()


@task("job.several", repeatable=True)
def several() -> None:
    _starts()
    _have_effect()
    _have_effect()


@task("job.twice")
def twice() -> None:
    _starts()
    _have_effect()
    _have_effect()


@task("job.nested")
def nested() -> None:
    _starts()
    with transaction() as session:
        act(session, _job())
        _have_effect()


@task("job.snooze")
def snooze() -> None:
    with transaction() as session:
        act(session, _job())
        if _starts() < 3:
            raise Snooze(0.05)


@task("job.exit")
def leave() -> None:
    _starts()
    raise SystemExit(1)


@task("job.discard")
def discard() -> None:
    with transaction() as session:
        act(session, _job())
        raise Discard("there is no such order any more")


@task("job.recover")
def recover() -> None:
    with transaction() as session:
        act(session, _job())
        if _starts() < 2:
            raise ConnectionError("the other side did not answer")


@task("job.fail")
def fail() -> None:
    _starts()
    raise LookupError("nobody expected this")


class Strange(Exception):
    """Cannot be made again from its arguments, and so not be sent to another process as it is."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


@task("job.strange")
def strange() -> None:
    _starts()
    raise Strange("this", "that")


@task("job.refuse")
def refuse() -> None:
    _starts()
    with transaction() as session:
        act(session, _job())
        raise VariantNotFound(variant_ids=[7])


@task("job.die")
def die() -> None:
    _starts()
    os.kill(os.getpid(), signal.SIGKILL)


@task("job.late")
def late() -> None:
    _starts()
    _have_effect()
    raise LookupError("what follows the commit")


_PROMISED = (
    "CREATE TEMP TABLE promised (id int PRIMARY KEY, next int REFERENCES promised DEFERRABLE INITIALLY DEFERRED)"
)


@task("job.swallow")
def swallow() -> None:
    """Its commit is refused, and it goes on as if nothing had been."""
    _starts()
    try:
        with transaction() as session:
            act(session, _job())
            session.execute(text(_PROMISED))
            session.execute(text("INSERT INTO promised VALUES (1, 2)"))
    except Exception:  # noqa: BLE001 - this is what it does wrong
        log.info("job.swallowed")


@task("job.nap")
def nap(seconds: float) -> None:
    _starts()
    pause = threading.Event()
    deadline = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
    while dt.datetime.now(dt.UTC) < deadline:
        pause.wait(0.02)
    _have_effect()


@task("job.on_day")
def on_day(day: dt.date, *, hours: int = 8) -> None:
    assert isinstance(day, dt.date)
    _starts()
    log.info("job.was_on_day", day=day.isoformat(), hours=hours)
    _have_effect()


@task("job.plain")
def plain(key: str) -> None:
    """Of a message that has no row."""
    scope = current.get()
    assert scope is not None
    assert scope.claim is None
    with transaction() as session:
        act(session, UUID(key))
