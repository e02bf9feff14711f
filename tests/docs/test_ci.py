"""`.ci/install` installs what is missing where it may, and never fails. Here it finds played programs only."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.processes import ROOT

if TYPE_CHECKING:
    from pathlib import Path

APT = "apt-get -qq -o DPkg::Lock::Timeout=120 install --no-install-recommends"
SOMEBODY = {"apt-get": "exit 1", "id": "echo 1000", "dpkg-query": "exit 1"}
# Does as it is told in words alone, and says what it was told.
SUDO = 'shift; echo "$@" >>"$TOLD"\n'


def install(directory: Path, programs: dict[str, str]) -> tuple[int, str, str]:
    """Run the script where there are these programs and no others: its exit code, its words, and what it told sudo."""
    for name, body in programs.items():
        (directory / name).write_text(f"#!/bin/sh\n{body}\n")
        (directory / name).chmod(0o755)
    told = directory / "told"
    told.touch()
    done = subprocess.run(
        ["/bin/bash", ROOT / ".ci" / "install", "chromium", "pgbouncer"],
        env={"PATH": str(directory), "TOLD": str(told)},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr, told.read_text()


@pytest.mark.parametrize(
    ("programs", "says"),
    [
        ({}, ""),
        ({**SOMEBODY, "dpkg-query": "echo installed"}, ""),
        ({**SOMEBODY, "sudo": "exit 1"}, "Not installed, since only root may: chromium pgbouncer\n"),
    ],
    ids=["no apt", "nothing missing", "not allowed"],
)
def test_it_does_nothing_where_it_cannot_or_need_not(programs: dict[str, str], says: str, tmp_path: Path) -> None:
    assert install(tmp_path, programs) == (0, says, "")


def test_it_installs_what_is_missing_and_keeps_it_from_starting(tmp_path: Path) -> None:
    code, says, told = install(tmp_path, {**SOMEBODY, "sudo": SUDO})

    assert (code, says) == (0, "")
    for package in ("chromium", "pgbouncer"):
        assert f"{APT} {package}\nsystemctl disable {package}\n" in told


def test_a_failure_of_apt_is_said_in_a_line_and_no_failure_of_its_own(tmp_path: Path) -> None:
    code, says, told = install(tmp_path, {**SOMEBODY, "sudo": f'{SUDO}case "$*" in *" chromium") exit 100; esac'})

    assert (code, says) == (0, "Not installed, since apt-get failed: chromium\n")
    assert f"{APT} pgbouncer\n" in told
