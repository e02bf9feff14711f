"""How the arguments of tasks are shown to people: primary keys, and nothing else.

Arguments may be payment references, names or addresses. A number or a UUID says which row a task is about; everything
else is shown as `…`.
"""

from __future__ import annotations

import ast
from typing import Any
from uuid import UUID

_HIDDEN = "…"
_ARGUMENTS = ("args", "kwargs")


def primary_keys_only(arguments: object) -> str:
    """Return arguments as they may be shown, whether they come as values or as Celery's text of them.

    >>> primary_keys_only("(42, 'pay-1')")
    '(42, …)'
    >>> primary_keys_only({"reservation_id": 42, "payment_ref": "pay-1"})
    '{reservation_id: 42, payment_ref: …}'
    """
    if isinstance(arguments, str):
        try:
            arguments = ast.literal_eval(arguments)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return _HIDDEN  # Celery cuts long texts, which leaves nothing that could be read back.
    if isinstance(arguments, dict):
        return "{" + ", ".join(f"{_name(name)}: {_key(value)}" for name, value in arguments.items()) + "}"
    if isinstance(arguments, (list, tuple)):
        return "(" + ", ".join(map(_key, arguments)) + ")"
    return _HIDDEN


def redacted(told: dict[str, Any]) -> dict[str, Any]:
    """Return what Celery tells about a task, an event or a request, with primary keys only and without its result."""
    shown = {name: value for name, value in told.items() if name != "result"}
    shown |= {name: primary_keys_only(told[name]) for name in _ARGUMENTS if told.get(name)}
    return shown


def _name(name: object) -> str:
    return name if isinstance(name, str) and name.isidentifier() else _HIDDEN


def _key(value: object) -> str:
    if type(value) is int or isinstance(value, UUID):
        return str(value)
    if isinstance(value, str):
        try:
            return str(UUID(value)) if len(value) == len(str(UUID(int=0))) else _HIDDEN
        except ValueError:
            return _HIDDEN
    return _HIDDEN
