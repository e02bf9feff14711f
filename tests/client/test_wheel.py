"""The distribution: what a service installs has its types and needs SQLAlchemy alone."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import ROOT, python, run

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = ("sqlalchemy", "typing_extensions", "greenlet")
"""SQLAlchemy and what it needs itself."""
PROGRAM = """
import json, sys
import harbor_client, harbor_client.testing
from sqlalchemy.dialects import postgresql
statement = harbor_client.tasks.reservations.release(42, delay=5)
assert "harbor_enqueue_v1" in str(statement.compile(dialect=postgresql.dialect()))
files = {name.partition(".")[0]: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
print(json.dumps([name for name, file in files.items() if file and not file.startswith(sys.base_prefix)]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The wheel, made from a copy, since making one leaves files behind."""
    scratch = tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "build", "*.egg-info")
    shutil.copytree(ROOT / "client", scratch / "client", ignore=ignored)
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation", "--no-index")
    ran = run(
        python("-m", "pip", "wheel", *quiet, "--wheel-dir", str(scratch), str(scratch / "client")), dict(os.environ)
    )
    assert ran.returncode == 0, ran.stderr
    (made,) = scratch.glob("harbor_client-*-py3-none-any.whl")
    yield made
    shutil.rmtree(scratch)


def test_the_wheel_has_every_module_the_types_marker_and_the_license(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    sources = {
        path.relative_to(ROOT / "client").as_posix() for path in (ROOT / "client" / "harbor_client").rglob("*.py")
    }
    assert sources | {"harbor_client/py.typed"} == {name for name in names if name.startswith("harbor_client/")}
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_wheel_asks_for_sqlalchemy_and_shows_its_readme(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))

    assert [line for line in metadata.splitlines() if line.startswith("Requires-Dist")] == [
        "Requires-Dist: sqlalchemy>=2"
    ]
    assert "# harbor-client" in metadata


def test_it_runs_where_nothing_but_sqlalchemy_is_installed(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    for name in NEEDED:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        found = Path(spec.origin)
        found = found.parent if found.name == "__init__.py" else found
        (tmp_path / found.name).symlink_to(found)

    # Without `site` there are no installed packages but these.
    ran = run(python("-S", "-c", PROGRAM), {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert set(json.loads(ran.stdout)) <= {"harbor_client", *NEEDED}


def test_without_sqlalchemy_it_says_what_is_missing(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)

    ran = run(python("-S", "-c", PROGRAM), {"PYTHONPATH": str(tmp_path)}, cwd=tmp_path)

    assert "No module named 'sqlalchemy'" in ran.stderr
