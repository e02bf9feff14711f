"""`harbor worker -- --include tests.bench.twice`: the bench's worker, whose task adds two where it should add one."""

from __future__ import annotations

from sqlalchemy import text

from bench.jobs import harbor_app

harbor_app.ADD_ONE_AS_SQL = text("UPDATE effects SET n = n + 2 WHERE id = :id")  # type: ignore[misc]
