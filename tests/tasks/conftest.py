"""Tasks run here in this process, as functions of Harbor's app; the tests share the database of tests/db."""

from tests.db.conftest import database, shared
from tests.worker.conftest import app

__all__ = ["app", "database", "shared"]
