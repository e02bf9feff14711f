"""Plain Alembic works from the root, as everybody knows it; it needs no word of ours."""

from __future__ import annotations

import re
import shutil
from typing import TYPE_CHECKING

import pytest
from alembic.script import ScriptDirectory

from tests.conftest import alembic_config
from tests.db.sql import rows
from tests.migrations.catalogue import catalogue
from tests.migrations.conftest import empty_the_database
from tests.processes import ROOT, program, run

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    Alembic = Callable[..., subprocess.CompletedProcess[str]]

# What Alembic needs of a checkout.
_NEEDED = ("db", "migrations", "tasks")


@pytest.fixture
def alembic(environ: dict[str, str]) -> Alembic:
    """Run `alembic …` in a directory, the root unless told otherwise."""

    def run_it(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
        return run([program("alembic"), *arguments], environ, cwd=cwd)

    return run_it


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A checkout that a test may write into."""
    root = tmp_path / "harbor"
    root.mkdir()
    shutil.copy(ROOT / "pyproject.toml", root)
    for name in _NEEDED:
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_upgrade_current_history_and_downgrade_work_from_the_root(alembic: Alembic) -> None:
    head = ScriptDirectory.from_config(alembic_config()).get_current_head()
    migrated = catalogue()
    empty_the_database()

    up = alembic("upgrade", "head")
    current = alembic("current")
    history = alembic("history", "--verbose")
    made = catalogue()
    down = alembic("downgrade", "-1")

    assert [done.returncode for done in (up, current, history, down)] == [0, 0, 0, 0], (up, down)
    assert made == migrated
    assert f"{head} (head)" in current.stdout
    assert "Create inventory and reservations" in history.stdout
    assert rows("SELECT version_num FROM alembic_version") != [(head,)]


def test_a_new_revision_is_named_by_its_time_and_holds_the_rule_of_a_deploy(alembic: Alembic, copy: Path) -> None:
    model = copy / "db" / "inventory" / "products.py"
    source = model.read_text("utf-8")
    known = set((copy / "migrations" / "versions").glob("*.py"))
    model.write_text(source.replace("archived_at: Mapped[", "colour: Mapped[str | None]\n    archived_at: Mapped[", 1))

    made = alembic("revision", "--autogenerate", "-m", "give products a colour", cwd=copy)
    (revision,) = set((copy / "migrations" / "versions").glob("*.py")) - known
    up = alembic("upgrade", "head", cwd=copy)
    upgraded = catalogue()
    check = alembic("check", cwd=copy)
    down = alembic("downgrade", "-1", cwd=copy)

    assert [done.returncode for done in (made, up, check, down)] == [0, 0, 0, 0], (made, up, check, down)
    assert re.fullmatch(r"\d{4}_\d{2}_\d{2}_\d{4}_give_products_a_colour\.py", revision.name)
    text = revision.read_text("utf-8")
    assert text.startswith('"""Give products a colour.\n')
    assert "add before you use, stop using before you drop" in text
    assert "lock_timeout 3 s" in text
    assert "column products.colour" in upgraded
    assert "column products.colour" not in catalogue()


def test_a_new_revision_passes_the_rules_of_the_house(alembic: Alembic, copy: Path, environ: dict[str, str]) -> None:
    made = alembic("revision", "-m", "do nothing", cwd=copy)
    (revision,) = (copy / "migrations" / "versions").glob("*_do_nothing.py")

    checked = run([program("ruff"), "check", str(revision)], environ, cwd=copy)
    formatted = run([program("ruff"), "format", "--check", str(revision)], environ, cwd=copy)

    assert made.returncode == 0, made
    assert (checked.returncode, formatted.returncode) == (0, 0), checked.stdout + formatted.stdout


def test_without_urls_it_names_the_variable_and_shows_no_traceback(environ: dict[str, str], copy: Path) -> None:
    bare = {name: told for name, told in environ.items() if not name.startswith("HARBOR_")}

    told = run([program("alembic"), "current"], bare, cwd=copy)

    assert told.returncode != 0
    assert "HARBOR_DATABASE_URL" in told.stderr + told.stdout
    assert "harbor up" in told.stderr + told.stdout
    assert "Traceback" not in told.stderr
