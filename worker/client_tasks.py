"""`python -m worker.client_tasks`: write the typed functions of harbor-client from the declared tasks.

A module per noun and a function per verb, so that an editor completes `tasks.reservations.release(` with its parameters
and the task's own sentence, and a type checker refuses a wrong one. `--check` writes nothing and fails when a file is
not what would be written. It needs no server and no setting.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import pkgutil
import re
import sys
import types
import typing
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal, Union, get_args, get_origin

import tasks
from db.jobs import all_declared

if typing.TYPE_CHECKING:
    from db.jobs.kinds import Declared

COMMAND: Final = "python -m worker.client_tasks"
HOME: Final = Path(__file__).resolve().parents[1] / "client" / "harbor_client" / "tasks"

_OPTIONS: Final = {
    "delay": "timedelta | float | None",
    "at": "datetime | None",
    "priority": "int | None",
    "dedupe_key": "str | None",
    "ordering_key": "str | None",
    "max_attempts": "int | None",
    "expires": "timedelta | float | None",
}
_PLAIN: Final[dict[Any, str]] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    None: "None",
    type(None): "None",
    list: "list[Any]",
    dict: "dict[str, Any]",
}


def rendered() -> dict[str, str]:
    """Return each file's name and text.

    Raises:
        InvalidTask: a parameter has the name of an option of every job, so that it could not be given by name.
    """
    for module in pkgutil.walk_packages(tasks.__path__, "tasks."):
        importlib.import_module(module.name)
    declared = [each for each in all_declared() if each.function.__module__.startswith("tasks.")]
    nouns = {noun: list(some) for noun, some in groupby(declared, lambda each: each.task.partition(".")[0])}
    return {"__init__.py": _package(sorted(nouns))} | {f"{noun}.py": _module(noun, nouns[noun]) for noun in nouns}


def _package(nouns: list[str]) -> str:
    listed = "".join(f'    "{noun}",\n' for noun in nouns)
    return f'''"""A typed function per task of Harbor, as in `tasks.reservations.release(42)`.

Written by `{COMMAND}`; do not edit.
"""

from harbor_client.tasks import (
{"".join(f"    {noun},{chr(10)}" for noun in nouns)})

__all__ = [
{listed}]
'''


def _module(noun: str, declared: list[Declared]) -> str:
    functions = "\n\n".join(map(_function, declared))
    names = ["TYPE_CHECKING", *(name for name in ("Any", "Literal") if re.search(rf"\b{name}\b", functions))]
    return f'''"""The tasks of `{noun}`. Written by `{COMMAND}`; do not edit."""

from __future__ import annotations

from typing import {", ".join(names)}

from harbor_client.statements import {"UNSET, " if "UNSET" in functions else ""}enqueue

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from harbor_client.statements import Enqueue


{functions}'''


def _function(declared: Declared) -> str:
    verb = declared.task.partition(".")[2]
    name = f"{verb}_" if keyword.iskeyword(verb) else verb
    hints = typing.get_type_hints(declared.function)
    by_place = [_told(each.name, hints, each.required) for each in declared.parameters if each.kind == "positional"]
    by_name = [_told(each.name, hints, each.required) for each in declared.parameters if each.kind == "keyword"]
    options = [f"{option}: {hint} = None" for option, hint in _OPTIONS.items()]
    passed = [f"{each}={each}" for each in (*(parameter.name for parameter in declared.parameters), *_OPTIONS)]
    told = "".join(f"    {line},\n" for line in (*by_place, "*", *by_name, *options))
    sent = "".join(f"        {line},\n" for line in (f'"{declared.task}"', *passed))
    summary = (inspect.getdoc(declared.function) or f"Enqueue {declared.task}.").partition("\n\n")[0]
    return f'''def {name}(
{told}) -> Enqueue:
    """{summary.replace(chr(10), f"{chr(10)}    ")}"""
    return enqueue(
{sent}    )
'''


def _told(name: str, hints: dict[str, Any], required: bool) -> str:
    # What is left out is left out of the job, too: the default is that of the code which runs it.
    return f"{name}: {_hint(hints.get(name, Any))}{'' if required else ' = UNSET'}"


def _hint(hint: Any) -> str:
    """Return the type of a value's JSON: what a caller without this code can pass."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"Literal[{', '.join(map(_quoted, parts))}]"
    if origin is typing.Annotated:
        return _hint(parts[0])
    either = " | ".join(dict.fromkeys(_hint(part) for part in parts if part is not ...))
    if origin in {Union, types.UnionType}:
        return either
    if origin in {list, set, frozenset, tuple}:
        return f"list[{either}]"
    if origin is dict:
        return f"dict[str, {_hint(parts[1])}]"
    is_text = isinstance(hint, type) and (issubclass(hint, str) or hint.__module__ in {"uuid", "datetime", "decimal"})
    return _PLAIN.get(hint, "str" if is_text else "Any")


def _quoted(value: object) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else repr(value)


def main() -> int:
    """Write the files, or with `--check` say which differ; return the exit code."""
    wanted = rendered()
    found = {path.name: path.read_text("utf-8") for path in HOME.glob("*.py")}
    differ = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if "--check" in sys.argv[1:]:
        if differ:
            sys.stderr.write(f"client/harbor_client/tasks: {', '.join(differ)} not current; run `{COMMAND}`\n")
        return 1 if differ else 0
    HOME.mkdir(exist_ok=True)
    for name in differ:
        if name in wanted:
            (HOME / name).write_text(wanted[name], "utf-8")
        else:
            (HOME / name).unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
