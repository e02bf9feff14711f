"""What the docs tell a reader to type is typed in a copy of the checkout, so that the tree stays as it is."""

from __future__ import annotations

import os
import shutil
import sysconfig
from pathlib import Path

import pytest

from tests.processes import ROOT

_SOURCES = (
    "celeryconfig.py",
    "cli",
    "db",
    "migrations",
    "pyproject.toml",
    "requirements",
    "stack",
    "tasks",
    "worker",
    "Makefile",
)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what runs, with the same Python environment."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    for name in _SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy / name)
    (copy / ".venv").mkdir()
    (copy / ".venv" / "bin").symlink_to(sysconfig.get_path("scripts"))
    return copy


@pytest.fixture
def reader(environ: dict[str, str], checkout: Path) -> dict[str, str]:
    """The environment of a reader who works in that copy."""
    # Not on PATH: the pages say where each program is.
    scripts = Path(sysconfig.get_path("scripts"))
    path = [part for part in environ["PATH"].split(os.pathsep) if Path(part) != scripts]
    return {**environ, "PYTHONPATH": str(checkout), "PATH": os.pathsep.join(path)}
