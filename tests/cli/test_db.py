from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cli.hints import typed
from tests.db.sql import change, value

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor

pytestmark = pytest.mark.usefixtures("environ")


def tables() -> int:
    return int(value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"))


def test_the_schema_goes_down_and_up_again(harbor: Harbor) -> None:
    full = tables()

    down = harbor("db", "downgrade", "base")
    empty = tables()
    up = harbor("db", "upgrade")

    assert down.code == up.code == 0
    assert (empty, tables()) == (1, full)
    assert down.out.endswith("to empty.\n")
    assert up.out.startswith("The database went from empty to ")
    assert harbor("db", "upgrade").out.startswith("The database stays at ")


def test_current_says_whether_it_is_the_newest(harbor: Harbor) -> None:
    head = harbor("db", "current", "--json").json()
    harbor("db", "downgrade", "-1")
    behind = harbor("db", "current", "--json").json()
    text = harbor("db", "current")

    assert head == {"revision": head["head"], "head": head["head"], "at_head": True}
    assert behind["at_head"] is False
    assert text.out.endswith(f"the newest is {head['head']}\n")


def test_a_downgrade_has_no_default(harbor: Harbor) -> None:
    assert harbor("db", "downgrade").code == 2
    assert harbor("db", "current", "--json").json()["at_head"]


def test_models_equal_migrations(harbor: Harbor) -> None:
    answer = harbor("db", "check")

    assert answer.code == 0
    assert answer.err == ""


def test_a_difference_is_printed_as_its_migration(harbor: Harbor) -> None:
    change("ALTER TABLE products DROP COLUMN category")

    answer = harbor("db", "check")

    assert answer.code == 1
    assert "op.add_column('products', sa.Column('category'" in answer.out
    assert answer.err.startswith("harbor: The models differ from the migrations")
    assert answer.err.count("\n") == 1


def test_a_database_that_is_behind_fails_the_check(harbor: Harbor) -> None:
    harbor("db", "downgrade", "base")

    behind = harbor("db", "check")
    upgraded = harbor("db", "check", "--upgrade")

    assert (behind.code, upgraded.code) == (1, 0)
    assert behind.err.startswith("harbor: The database is at revision none, and the newest is ")
    assert behind.err.endswith(f": run {typed('`harbor db upgrade`')}.\n")


def test_an_unknown_revision_is_named(harbor: Harbor) -> None:
    answer = harbor("db", "upgrade", "nowhere")

    assert answer.code == 1
    assert "nowhere" in answer.err
    assert answer.err.count("\n") == 1
