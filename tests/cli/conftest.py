"""An operator at the command line: `harbor(…)` runs one command in this process and returns what it answered."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

import cli
from tests.db.conftest import database, shared

if TYPE_CHECKING:
    from pathlib import Path


# One database for all of these, empty at the start of each: to make one for each would take most of the time.
__all__ = ["database", "shared"]


@dataclass(frozen=True)
class Answer:
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """The answer as a script reads it."""
        return json.loads(self.out)


class Harbor(Protocol):
    def __call__(self, *arguments: object) -> Answer: ...


@pytest.fixture
def harbor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Harbor:
    """Run commands in a directory that is no checkout; Typer's hook for uncaught errors is undone at the end."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Answer(ended.value.code, written.out, written.err)

    return run
