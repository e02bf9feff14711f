"""What a worker process does when it starts and stops: its log, and an engine of its own size, made after fork."""

from __future__ import annotations

from typing import Any

import structlog
from celery.signals import celeryd_after_setup, setup_logging, worker_process_init, worker_process_shutdown
from sqlalchemy.exc import SQLAlchemyError

from db import engine
from db.errors import HarborError
from db.session import transaction
from db.settings import settings
from worker import logging
from worker.registry import keep_types

log = structlog.get_logger()


@setup_logging.connect
def _log(**_: Any) -> None:
    # A receiver of this signal also tells Celery to leave the log alone.
    logging.configure(settings())


@celeryd_after_setup.connect
def _start(instance: Any, **_: Any) -> None:
    # With a pool of threads the tasks run in this very process. A prefork parent opens no connection at all. At the
    # earlier signal worker_init the concurrency is still the word "auto".
    engine.configure(application_name=_name(), concurrency=instance.concurrency)
    _keep_types(instance.app)


def _keep_types(app: Any) -> None:
    """Tell the database which tasks there are, before the pool forks: no child inherits this connection."""
    try:
        with transaction() as session:
            changed = keep_types(app, session)
        if changed:
            log.info("job_types.written", tasks=changed)
    except (SQLAlchemyError, HarborError) as error:
        # A worker without a database waits for it, and `harbor db upgrade` has most likely written them before.
        log.warning("job_types.not_written", error=type(error).__name__)
    finally:
        engine.dispose()


@worker_process_init.connect
def _start_child(**_: Any) -> None:
    engine.configure(application_name=_name(), concurrency=1)


@worker_process_shutdown.connect
def _stop_child(**_: Any) -> None:
    engine.dispose()


def _name() -> str:
    return f"harbor-worker-{settings().worker_pool}"
