"""A browser as an operator has it: headless Chromium, a new one for each page, that talks to this machine alone."""

from __future__ import annotations

import html
import re
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.processes import run

if TYPE_CHECKING:
    from pathlib import Path

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")

_FLAGS = (
    "--headless=new",
    # The sandbox refuses root, and most containers refuse the sandbox.
    "--no-sandbox",
    "--disable-gpu",
    # A container's /dev/shm may be too small for a page.
    "--disable-dev-shm-usage",
    # Nothing that one page showed is kept for the next one.
    "--incognito",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    # Whatever else it would like to ask for, it finds no address of.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
    "--window-size=1280,800",
    # On the page's own clock, which runs as fast as its scripts and its requests allow.
    "--virtual-time-budget=5000",
)


@dataclass(frozen=True)
class Browser:
    """A program, and a directory that it may write to."""

    program: str
    directory: Path

    def page(self, url: str) -> str:
        """The page as it stands after its scripts ran; empty when the server refused it."""
        return self._run("--dump-dom", url)

    def rows(self, url: str) -> list[list[str]]:
        """The tables of the page: the text of each cell, row by row."""
        return [
            [html.unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in re.findall(r"<td.*?</td>", row, re.DOTALL)]
            for row in re.findall(r"<tr.*?</tr>", self.page(url), re.DOTALL)
        ]

    def screenshot(self, url: str) -> bytes:
        """The page as a PNG of 1280 by 800."""
        file = self.directory / "screenshot.png"
        self._run(f"--screenshot={file}", url)
        return file.read_bytes()

    def _run(self, order: str, url: str) -> str:
        # Its settings and crash reports go to the home directory.
        environ = {"HOME": str(self.directory), "PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        done = run([self.program, *_FLAGS, f"--user-data-dir={self.directory / 'profile'}", order, url], environ)
        assert done.returncode == 0, done.stderr
        return done.stdout


def find() -> str | None:
    """The path of an installed browser."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
