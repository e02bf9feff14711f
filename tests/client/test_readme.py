"""What the client's README shows works as shown."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

import harbor_client
from tests.db.sql import change
from tests.docs.blocks import blocks_of
from tests.processes import ROOT, python, run

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

PAGE = ROOT / "client" / "README.md"
BLOCKS = blocks_of(PAGE)


def test_its_programs_run_and_print_what_it_shows(environ: dict[str, str]) -> None:
    told = {**os.environ, "DATABASE_URL": environ["HARBOR_DATABASE_URL"], "PYTHONPATH": str(ROOT / "client")}
    programs = [place for place, block in enumerate(BLOCKS) if block.language == "python"]

    for place in programs:
        ran = run(python("-c", BLOCKS[place].text), told)
        after = BLOCKS[place + 1]
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout == (after.text if after.language == "text" else "")
        # Each is a program of its own, and the last one drains what it finds.
        change("DELETE FROM jobs")

    assert len(programs) == 3


def test_its_sql_runs(session: Session) -> None:
    session.execute(text("CREATE ROLE shop"))
    statements = [part for block in BLOCKS if block.language == "sql" for part in block.text.split(";") if part.strip()]

    for statement in statements:
        # A colon would be taken for a bind parameter.
        session.execute(text(statement.replace(":", "\\:")))

    assert len(statements) == 6


@pytest.mark.parametrize("name", ["enqueue", "enqueue_many", "job", "cancel", "refusals", "InvalidJob", "tasks"])
def test_it_tells_of_everything_there_is(name: str) -> None:
    assert name in PAGE.read_text("utf-8")
    assert name in harbor_client.__all__
