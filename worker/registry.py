"""What this code's tasks are, told to the database, which refuses jobs for any other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from db import jobs

if TYPE_CHECKING:
    from celery import Celery


def routes(app: Celery) -> dict[str, jobs.Route]:
    """Return where each declared task runs, by celeryconfig's routes."""
    app.loader.import_default_modules()
    amqp: Any = app.amqp
    priority = app.conf.task_default_priority
    return {each.task: jobs.Route(_queue(amqp.router.route({}, each.task)), priority) for each in jobs.all_declared()}


def keep_types(app: Celery, session: Any) -> list[str]:
    """Write the declared tasks into `job_types`; return which were new or different. Nothing is committed."""
    return jobs.keep(session, routes(app))


def _queue(route: dict[str, Any]) -> str:
    queue = route["queue"]
    return queue if isinstance(queue, str) else str(queue.name)
