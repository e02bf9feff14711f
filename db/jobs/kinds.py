"""Which tasks there are, where they run and what they take: the registry in code, and its copy in the database.

A task is declared once, in Python. What SQL has to know of it to refuse a wrong job stands in `job_types`, which
`harbor db upgrade` and every worker at its start write. A row is never removed by that: during a deploy the old code's
tasks are still enqueued.
"""

from __future__ import annotations

import inspect
import json
import types
import typing
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, ValidationError, create_model
from sqlalchemy import SmallInteger, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from db.errors import InvalidJob, InvalidTask
from db.schema import STATEMENT_TIME, Base

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from pydantic import BaseModel
    from sqlalchemy.orm import Session

DEFAULT_MAX_ATTEMPTS: Final = 20
"""Outlasts a failover: with full jitter and at most ten minutes between two, twenty attempts take about an hour."""

_OPTIONS: Final = frozenset(
    {"session", "task", "delay", "at", "priority", "dedupe_key", "ordering_key", "max_attempts", "expires"}
)
_ANY: Final = ("array", "boolean", "null", "number", "object", "string")
_JSON_TYPES: Final[dict[Any, tuple[str, ...]]] = {
    bool: ("boolean",),
    int: ("integer",),
    float: ("number",),
    str: ("string",),
    None: ("null",),
    type(None): ("null",),
    list: ("array",),
    tuple: ("array",),
    set: ("array",),
    frozenset: ("array",),
    dict: ("object",),
    Any: _ANY,
    object: _ANY,
}


class JobType(Base):
    """What the database knows of a task: its queue, its defaults, and the JSON types of its parameters."""

    __tablename__ = "job_types"

    task: Mapped[str] = mapped_column(primary_key=True)
    queue: Mapped[str]
    priority: Mapped[int] = mapped_column(SmallInteger)
    max_attempts: Mapped[int] = mapped_column(SmallInteger)
    parameters: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    updated_at: Mapped[datetime] = mapped_column(server_default=STATEMENT_TIME)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter: `positional` may be given by place or name, `keyword` by name; `types` are JSON's."""

    name: str
    kind: Literal["positional", "keyword"]
    types: tuple[str, ...]
    required: bool


@dataclass(frozen=True)
class Declared:
    """A task as this process declares it."""

    task: str
    function: Callable[..., Any]
    max_attempts: int

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """What it takes. Raises InvalidTask when a parameter cannot be called from JSON."""
        return tuple(self._parameter(each) for each in self._signature.parameters.values())

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name and as the annotations want them: a UUID for the text of one, for example.

        Args:
            args: by place, values from JSON.
            kwargs: by name, values from JSON.

        Raises:
            InvalidJob: an argument is missing, unknown or of another type; the message names it and not its value.
        """
        try:
            given = self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidJob(task=self.task, field="args", problem=f"do not fit: {error}") from None
        try:
            checked = self._model.model_validate_json(json.dumps(given), strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            where = ".".join(map(str, first["loc"]))
            problem = f"does not fit: {first['msg'][:1].lower()}{first['msg'][1:]}"
            raise InvalidJob(task=self.task, field=where, problem=problem) from None
        return {name: getattr(checked, name) for name in given}

    @cached_property
    def plain(self) -> bool:
        """Whether JSON's types say all that the annotations do, as they do for integers and text."""
        return all(_is_plain(self._hints.get(name, Any)) for name in self._signature.parameters)

    @cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(self.function, include_extras=True)
        except NameError as error:
            problem = f"has an annotation that cannot be read when it runs: {error}"
            raise InvalidTask(task=self.task, problem=problem) from None

    @cached_property
    def _model(self) -> type[BaseModel]:
        fields: dict[str, Any] = {
            each.name: (self._hints.get(each.name, Any), ... if each.default is each.empty else each.default)
            for each in self._signature.parameters.values()
        }
        config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", protected_namespaces=())
        return create_model(self.task, __config__=config, **fields)

    def _parameter(self, told: inspect.Parameter) -> Parameter:
        if told.name in _OPTIONS:
            raise InvalidTask(task=self.task, problem=f"has the parameter {told.name}, which is an option of every job")
        if told.kind not in {told.POSITIONAL_OR_KEYWORD, told.KEYWORD_ONLY}:
            raise InvalidTask(task=self.task, problem=f"must name each parameter and take it by name, unlike {told}")
        return Parameter(
            told.name,
            "keyword" if told.kind is told.KEYWORD_ONLY else "positional",
            tuple(sorted(set(_json_types(self._hints.get(told.name, Any))))),
            told.default is told.empty,
        )


_declared: dict[str, Declared] = {}


def declare(task: str, function: Callable[..., Any], *, max_attempts: int = DEFAULT_MAX_ATTEMPTS) -> None:
    """Make a task known to this process; a second declaration of the name replaces the first."""
    _declared[task] = Declared(task, function, max_attempts)


def declared(task: str) -> Declared | None:
    """Return what this process knows of a task, which is nothing where its module was not imported."""
    return _declared.get(task)


def all_declared() -> tuple[Declared, ...]:
    """Return every task that this process knows, by name."""
    return tuple(_declared[name] for name in sorted(_declared))


@dataclass(frozen=True, slots=True)
class Route:
    """Where a task runs."""

    queue: str
    priority: int


_KEEP = text("""
INSERT INTO job_types (task, queue, priority, max_attempts, parameters)
SELECT task, queue, priority, max_attempts, parameters
  FROM jsonb_to_recordset(CAST(:types AS jsonb))
       AS t(task text, queue text, priority smallint, max_attempts smallint, parameters jsonb)
 ORDER BY task
ON CONFLICT (task) DO UPDATE
   SET queue = excluded.queue, priority = excluded.priority, max_attempts = excluded.max_attempts,
       parameters = excluded.parameters, updated_at = statement_timestamp()
 WHERE (job_types.queue, job_types.priority, job_types.max_attempts, job_types.parameters)
       IS DISTINCT FROM (excluded.queue, excluded.priority, excluded.max_attempts, excluded.parameters)
RETURNING task""")


def keep(session: Session, routes: Mapping[str, Route]) -> list[str]:
    """Write the declared tasks into `job_types` and return the names of those that were new or different.

    Args:
        session: the caller's session; nothing is committed.
        routes: where each declared task runs, by its name.

    Raises:
        InvalidTask: a task has a parameter that cannot be called from JSON.
    """
    types_ = [
        {
            "task": each.task,
            "queue": routes[each.task].queue,
            "priority": routes[each.task].priority,
            "max_attempts": each.max_attempts,
            "parameters": [asdict(parameter) for parameter in each.parameters],
        }
        for each in all_declared()
    ]
    return list(session.scalars(_KEEP, {"types": json.dumps(types_)}))


def _json_types(hint: Any) -> Iterable[str]:
    """Return the JSON types that a value of an annotation may have; what nobody can tell may have any."""
    if isinstance(hint, typing.TypeAliasType if hasattr(typing, "TypeAliasType") else ()):
        return _json_types(hint.__value__)
    origin = get_origin(hint)
    if origin in {Union, types.UnionType}:
        return [name for part in get_args(hint) for name in _json_types(part)]
    if origin is typing.Annotated:
        return _json_types(get_args(hint)[0])
    if origin is Literal:
        return [name for value in get_args(hint) for name in _json_types(type(value))]
    kind = origin or hint
    if kind in _JSON_TYPES:
        return _JSON_TYPES[kind]
    # UUID, date, Decimal, an enumeration and the like are text in JSON, most of them, and pydantic knows the rest.
    return _ANY


def _is_plain(hint: Any) -> bool:
    if get_origin(hint) in {Union, types.UnionType}:
        return all(map(_is_plain, get_args(hint)))
    return hint in {bool, int, float, str, type(None), None, list, dict, Any, object}
