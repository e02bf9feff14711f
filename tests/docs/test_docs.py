"""What README and docs show works as shown: programs run, commands exist and end well, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.docs.blocks import Block, blocks_of
from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench/README.md", *sorted(ROOT.glob("docs/**/*.md"))]
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)\)")


def _run(command: list[str], cwd: Path, environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=120, check=False)


def _programs() -> list[tuple[str, Block, Block | None]]:
    """Every whole program in the docs, with the output that the page shows right after it, if it does."""
    found = []
    for page in PAGES:
        blocks = [*blocks_of(page), Block("", "")]
        for block, after in pairwise(blocks):
            if block.language == "python" and block.path is None:
                found.append((page.name, block, after if after.language == "text" else None))
    return found


@pytest.mark.parametrize(
    ("page", "program", "shown"), _programs(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_programs_run_and_print_what_the_page_shows(
    page: str, program: Block, shown: Block | None, checkout: Path, reader: dict[str, str]
) -> None:
    ran = _run([sys.executable, "-c", program.text], checkout, reader)

    assert ran.returncode == 0, ran.stderr
    assert shown is None or ran.stdout == shown.text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_end_well(page: Path, checkout: Path, reader: dict[str, str]) -> None:
    commands = [command for block in blocks_of(page) if block.language == "console" for command in block.commands]

    for command in commands:
        # What `make` would run is tested elsewhere, and some of it would run these tests again.
        asked = command.replace("make ", "make --dry-run ", 1) if command.startswith("make ") else command
        ran = _run(["sh", "-c", asked], checkout, reader)

        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    targets = _LINK.findall(page.read_text("utf-8"))

    missing = [target for target in targets if not (page.parent / target).exists()]

    assert missing == []


def test_the_readme_shows_a_program_of_about_twenty_lines_around_the_mug() -> None:
    program = next(block for block in blocks_of(ROOT / "README.md") if block.language == "python")

    lines = [line for line in program.text.splitlines() if line.strip()]

    assert "HBR-MUG-01" in program.text
    assert len(lines) <= 20


def test_every_test_that_guarantees_names_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs/guarantees.md").read_text("utf-8"))

    missing = [f"{path}::{name}" for path, name in named if f"def {name}(" not in (ROOT / path).read_text("utf-8")]

    assert len(named) >= 10
    assert missing == []
