"""The code blocks of a Markdown page, in the order in which a reader meets them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./]+\.py)")


@dataclass(frozen=True)
class Block:
    """One fenced block. `path` is set when its first line names the file that it belongs to."""

    language: str
    text: str

    @property
    def path(self) -> str | None:
        """The file that the block is a part of, relative to the root."""
        named = _FILE.match(self.text) if self.language == "python" else None
        return named.group(1) if named else None

    @property
    def body(self) -> str:
        """The block without the line that names its file."""
        return self.text.split("\n", 1)[1] if self.path else self.text

    @property
    def commands(self) -> list[str]:
        """The lines of a console block that a reader types."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]


def blocks_of(page: Path) -> list[Block]:
    """Every fenced block of a page."""
    return [Block(*found.groups()) for found in _FENCED.finditer(page.read_text("utf-8"))]
