"""Where a task is declared, all that its annotations say is checked before a job is sent; SQL checks JSON's types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID  # noqa: TC003 - an annotation that is read when the job is enqueued

import pytest

from db import jobs
from db.errors import InvalidJob
from db.jobs import JobRequest, kinds
from db.session import transaction
from tests import ledger
from tests.db.sql import recorded, value

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("database")


def typed(which: UUID, how: Literal["soft", "hard"], numbers: list[int], *, note: str | None = None) -> None:
    """Take what JSON's types cannot say."""


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> str:
    """A task that this process declares, with annotations that SQL does not know."""
    monkeypatch.setattr(kinds, "_declared", dict(kinds._declared))
    jobs.declare("sample.typed", typed)
    any_, listed = ["array", "boolean", "null", "number", "object", "string"], ["array"]
    return ledger.make_type("sample.typed", which=any_, how=["string"], numbers=listed)


def put_many(task: str, *args: Any) -> None:
    with transaction() as session:
        jobs.enqueue_many(session, [JobRequest(task, args)])


UUID_TEXT = "0199a1c2-0000-7000-8000-000000000001"


def test_values_that_fit_the_annotations_are_taken(declared: str) -> None:
    assert ledger.row(ledger.put(declared, UUID_TEXT, "soft", [1, 2])).args == [UUID_TEXT, "soft", [1, 2]]


@pytest.mark.parametrize(
    ("args", "field"),
    [
        (("no uuid", "soft", [1]), "which"),
        ((5, "soft", [1]), "which"),
        ((UUID_TEXT, "softly", [1]), "how"),
        ((UUID_TEXT, "soft", [1, "2"]), "numbers.1"),
        ((UUID_TEXT, "soft", [True]), "numbers.0"),
    ],
)
@pytest.mark.parametrize("put", [ledger.put, put_many], ids=["one", "many"])
def test_values_that_do_not_fit_the_annotations_are_refused_before_anything_is_sent(
    declared: str, args: tuple[Any, ...], field: str, put: Callable[..., object]
) -> None:
    with recorded() as sent, pytest.raises(InvalidJob) as refused:
        put(declared, *args)

    assert refused.value.ids["field"].removeprefix("jobs[0].") == field
    assert [statement for statement in sent if "harbor" in statement] == []
    assert value("SELECT count(*) FROM jobs") == 0
