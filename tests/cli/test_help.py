from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.processes import program, python, run

if TYPE_CHECKING:
    from tests.cli.conftest import Harbor

COMMANDS = [
    "",
    "up",
    "worker",
    "beat",
    "flower",
    "db",
    "db upgrade",
    "db downgrade",
    "db current",
    "db check",
    "reservations",
    "reservations list",
    "reservations show",
    "reservations release",
    "reservations expire",
    "inventory",
    "inventory receive",
    "inventory adjust",
    "inventory reconcile",
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


def test_the_script_and_the_module_are_the_same(environ: dict[str, str]) -> None:
    script = run([program("harbor"), "db", "current"], environ)
    module = run(python("-m", "cli", "db", "current"), environ)

    assert script.returncode == module.returncode == 0
    assert script.stdout == module.stdout
