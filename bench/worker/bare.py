"""`celery -A bench.worker.bare worker`: Celery as it comes, with Harbor's settings and a task that does nothing.

It has what any worker needs that works on PostgreSQL, SQLAlchemy and psycopg, and nothing else of Harbor's.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace
from typing import Any

import psycopg  # noqa: F401 - part of the memory it is measured by
import sqlalchemy.orm  # noqa: F401
from celery import Celery

# celeryconfig reads db.settings, which would bring pydantic and its memory; this says the same and weighs nothing.
_pool = os.environ["HARBOR_WORKER_POOL"]
_broker_url = SimpleNamespace(get_secret_value=lambda: os.environ["HARBOR_BROKER_URL"])
_stand_in: Any = SimpleNamespace(
    POOLS=("default", "expiry", "bulk"), settings=lambda: SimpleNamespace(worker_pool=_pool, broker_url=_broker_url)
)
sys.modules["db.settings"] = _stand_in

app = Celery("bare")
app.config_from_object("celeryconfig")
app.conf.imports = ()


@app.task(name="bench.rest")
def rest() -> None:
    """Do nothing."""
