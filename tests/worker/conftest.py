"""One worker with sample tasks serves the tests of a module; it uses no table, so it needs no database of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import pytest

from tests.broker import Broker, own_broker
from tests.processes import Process, process, python

if TYPE_CHECKING:
    from pathlib import Path

    from celery import Celery

@pytest.fixture
def broker(environ: dict[str, str]) -> Iterator[Broker]:
    """An empty broker of this test's own."""
    with own_broker(environ) as broker:
        yield broker


@pytest.fixture
def app(environ: dict[str, str]) -> Celery:
    """Harbor's app in this process; it is made at the first import, which needs the environment."""
    from worker.celery import app

    app.loader.import_default_modules()
    return app
