"""A migration never keeps the shop waiting: it has timeouts, it can be run again, and only one runs at a time."""

from __future__ import annotations

import io
import textwrap
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from alembic import command
from sqlalchemy.exc import OperationalError

from db import engine
from tests.db.sql import locked, rows, value
from tests.migrations.catalogue import catalogue
from tests.migrations.conftest import empty_the_database, head_of
from tests.processes import ROOT, process, program, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from alembic.config import Config

_MIGRATION_LOCK = 0x4841_5242  # migrations/env.py
_DEADLINE_SECONDS = 30

_PROBE = '''"""A revision of the test."""

from alembic import op

revision = "probe"
down_revision = "{head}"


def upgrade() -> None:
{body}
'''


def _with_probe(config: Config, versions: Path, *body: str) -> Config:
    """Let one more revision follow the head, with these lines; it stands beside the tree and not in it."""
    indented = textwrap.indent("\n".join(body), "    ")
    (versions / "probe.py").write_text(_PROBE.format(head=head_of(config), body=indented))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", f"{ROOT / 'migrations' / 'versions'}\n{versions}")
    return config


def _stamp() -> str:
    return str(value("SELECT version_num FROM alembic_version"))


def test_the_timeouts_are_set_inside_a_migration(alembic: Config, tmp_path: Path) -> None:
    names = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
    settings = ", ".join(f"current_setting('{name}') AS {name}" for name in names)
    probed = _with_probe(alembic, tmp_path, f'op.execute("CREATE TABLE probe AS SELECT {settings}")')

    command.upgrade(probed, "head")

    assert rows("SELECT * FROM probe") == [("3s", "1min", "1min")]


def test_a_migration_that_cannot_get_its_lock_gives_up_soon_and_can_be_run_again(
    alembic: Config, tmp_path: Path
) -> None:
    probed = _with_probe(alembic, tmp_path, 'op.execute("ALTER TABLE products ADD COLUMN colour text")')
    before = catalogue(), _stamp()

    started = time.monotonic()
    with locked("SELECT FROM products"), pytest.raises(OperationalError, match="lock timeout"):
        command.upgrade(probed, "head")
    took_seconds = time.monotonic() - started
    after_the_failure = catalogue(), _stamp()
    command.upgrade(probed, "head")

    assert 2.9 < took_seconds < 15
    assert after_the_failure == before
    assert _stamp() == "probe"
    assert "column products.colour" in catalogue()


def test_each_migration_is_a_transaction_of_its_own(empty: Config, tmp_path: Path) -> None:
    head = head_of(empty)
    probed = _with_probe(empty, tmp_path, 'op.execute("CREATE TABLE half_done ()")', 'op.execute("SELECT 1 / 0")')

    with pytest.raises(Exception, match="division by zero"):
        command.upgrade(probed, "head")

    assert _stamp() == head
    assert "relation half_done" not in catalogue()
    assert "relation variants" in catalogue()


def test_an_index_can_be_built_without_locking_the_table_and_without_timeouts(alembic: Config, tmp_path: Path) -> None:
    probed = _with_probe(
        alembic,
        tmp_path,
        "with op.get_context().autocommit_block():",
        '    op.execute("SET lock_timeout = 0")',
        '    op.execute("SET statement_timeout = 0")',
        """    op.execute("CREATE TABLE inside AS SELECT current_setting('lock_timeout')")""",
        '    op.execute("CREATE INDEX CONCURRENTLY probe ON products (name)")',
        '    op.execute("RESET lock_timeout")',
        '    op.execute("RESET statement_timeout")',
        """op.execute("CREATE TABLE after AS SELECT current_setting('lock_timeout') AS one")""",
    )

    command.upgrade(probed, "head")

    assert "index products.probe" in catalogue()
    assert rows("SELECT * FROM inside") == [("0",)]
    assert rows("SELECT * FROM after") == [("3s",)]


def test_of_two_migrators_both_succeed_one_after_the_other(
    empty: Config, environ: dict[str, str], tmp_path: Path
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'harbor-migrate'"
    upgrade = [program("alembic"), "upgrade", "head"]

    with ExitStack() as stack:
        # As a third migrator, which is at work when they come.
        with locked("SELECT pg_advisory_lock(:key)", key=_MIGRATION_LOCK) as third:
            both = [stack.enter_context(process(upgrade, environ, tmp_path / f"{name}.log")) for name in "ab"]
            wait_until(lambda: value(waiting) == 2, _DEADLINE_SECONDS, *both)
            while_they_wait = catalogue()
            third.exec_driver_sql("SELECT pg_advisory_unlock_all()")
        wait_until(lambda: not any(one.runs() for one in both), _DEADLINE_SECONDS, *both)
        exit_codes = [one.popen.wait() for one in both]

    assert while_they_wait == {}
    assert exit_codes == [0, 0]
    assert _stamp() == head_of(empty)


def test_the_sql_of_an_offline_upgrade_makes_the_same_with_the_same_timeouts(alembic: Config) -> None:
    online = catalogue()
    empty_the_database()

    alembic.output_buffer = io.StringIO()
    command.upgrade(alembic, "head", sql=True)
    sql = alembic.output_buffer.getvalue()
    with engine.engine().connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(sql)

    assert "SET lock_timeout = '3s'" in sql
    assert "SET statement_timeout = '60s'" in sql
    assert catalogue() == online
