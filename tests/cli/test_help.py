from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest

from cli.db import version
from cli.hints import typed
from tests.processes import ROOT, program, python, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Harbor

COMMANDS = [
    "",
    "up",
    "worker",
    "beat",
    "relay",
    "flower",
    "db",
    "db upgrade",
    "db downgrade",
    "db current",
    "db check",
    "reservations",
    "reservations list",
    "reservations show",
    "reservations extend",
    "reservations release",
    "reservations expire",
    "reservations refunds",
    "inventory",
    "inventory receive",
    "inventory adjust",
    "inventory reconcile",
    "jobs",
    *(f"jobs {verb}" for verb in ("list", "show", "retry", "cancel", "bury", "stats", "watch")),
    "queues",
    *(f"queues {verb}" for verb in ("list", "pause", "resume", "limit")),
    "schedule",
    *(f"schedule {verb}" for verb in ("list", "add", "remove", "pause", "resume", "run-now")),
]
SLOW = ["alembic", "celery", "pydantic", "psycopg", "rich.table", "sqlalchemy", "stack"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_an_example(harbor: Harbor, command: str) -> None:
    answer = harbor(*command.split(), "--help")

    assert answer.code == 0
    assert f"Example: {'' if command == 'flower' else f'harbor {command}'.strip()}" in answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_in_the_help_of_its_group(harbor: Harbor, command: str) -> None:
    *group, name = ["", *command.split()]

    answer = harbor(*filter(None, group), "--help")

    assert name in answer.out


def test_help_loads_nothing_that_is_slow(servers: dict[str, str]) -> None:
    script = f"import cli, json, sys; print(json.dumps([name for name in {SLOW!r} if name in sys.modules]))"

    answer = run(python("-c", script), {**os.environ, **servers})

    assert json.loads(answer.stdout) == []


@pytest.mark.parametrize(
    "command", ["sail", "reservations list --stat held", "reservations show nine", "worker --pool x"]
)
def test_what_no_command_understands_is_an_error_of_usage(harbor: Harbor, command: str) -> None:
    answer = harbor(*command.split())

    assert answer.code == 2
    assert "Traceback" not in answer.err


def test_a_flag_is_not_shown_as_if_it_took_a_value(harbor: Harbor) -> None:
    answer = harbor("reservations", "list", "--help")

    assert "--limit <int>" in answer.out
    assert "--json  " in answer.out
    assert "<bool>" not in answer.out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("inventory receive X abc", "'qty': must be a valid integer."),
        ("reservations list --state bogus", "'--state': 'bogus' is not one of 'held',"),
        ("worker --concurrency 0", "'--concurrency': must be greater than or equal to 1."),
    ],
)
def test_a_wrong_argument_is_explained_in_our_words(harbor: Harbor, command: str, says: str) -> None:
    answer = harbor(*command.split())

    assert answer.code == 2
    assert answer.err.endswith(says + "\n") or f"{says} " in answer.err


def test_the_version_is_that_of_the_project(harbor: Harbor) -> None:
    answer = harbor("--version")

    assert answer.out == f"harbor {version()}\n"
    assert answer.code == 0


def test_commands_in_hints_are_named_so_that_they_work_as_typed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "my code" / "bin" / "harbor"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(script.with_name("python")))
    monkeypatch.chdir(tmp_path)

    monkeypatch.setenv("PATH", str(tmp_path))
    inactive = typed("run `harbor up`, or `true`")
    monkeypatch.chdir(ROOT)
    elsewhere = typed("`harbor up`")
    monkeypatch.setenv("PATH", str(script.parent))

    assert inactive == "run `'my code/bin/harbor' up`, or `true`"
    assert elsewhere == f"`'{script}' up`"
    assert typed("`harbor up`") == "`harbor up`"


def test_the_script_and_the_module_are_the_same(environ: dict[str, str]) -> None:
    script = run([program("harbor"), "db", "current"], environ)
    module = run(python("-m", "cli", "db", "current"), environ)

    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout
