"""A typed function per task, written from the declared tasks, and current."""

from __future__ import annotations

import inspect
from enum import Enum, StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal, Optional
from uuid import UUID

import pytest

from db import jobs
from db.errors import InvalidTask
from db.jobs import kinds
from harbor_client import tasks
from tests import ledger
from tests.processes import python, run
from worker import client_tasks

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.orm import Session


def test_the_committed_functions_are_current() -> None:
    """In a process of its own, without a setting or a server: it shall not see what other tests have declared."""
    ran = run(python("-m", "worker.client_tasks", "--check"), {"PYTHONWARNINGS": "error"})

    assert ran.returncode == 0, f"{ran.stderr}Run `{client_tasks.COMMAND}` and commit what it writes."


def test_what_is_not_current_is_named_and_written_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(client_tasks, "HOME", tmp_path / "tasks")
    monkeypatch.setattr("sys.argv", ["client_tasks"])
    assert client_tasks.main() == 0
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "tasks").iterdir()}
    (tmp_path / "tasks" / "reservations.py").write_text("", "utf-8")
    (tmp_path / "tasks" / "forgotten.py").write_text("", "utf-8")

    monkeypatch.setattr("sys.argv", ["client_tasks", "--check"])
    assert client_tasks.main() == 1
    assert "forgotten.py, reservations.py not current" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["client_tasks"])
    assert client_tasks.main() == 0
    assert {path.name: path.read_text("utf-8") for path in (tmp_path / "tasks").iterdir()} == written


def test_a_function_has_the_parameters_and_the_sentence_of_its_task() -> None:
    told = inspect.signature(tasks.reservations.confirm).parameters

    assert list(told)[:2] == ["reservation_id", "payment_ref"]
    assert {name for name in told if told[name].kind is inspect.Parameter.KEYWORD_ONLY} == {
        *("delay", "at", "priority", "dedupe_key", "ordering_key", "max_attempts", "expires")
    }
    assert (tasks.reservations.confirm.__doc__ or "").startswith("Sell the units of one hold")


def test_a_call_writes_the_job_of_its_task(session: Session) -> None:
    task_id: UUID = session.execute(tasks.reservations.confirm(42, "pay-1", priority=0)).scalar_one()
    session.commit()

    row = ledger.row(task_id)
    assert (row.task, row.queue, row.priority) == ("reservations.confirm", "expiry", 0)
    assert (row.args, row.kwargs) == ([], {"reservation_id": 42, "payment_ref": "pay-1"})


def test_what_is_left_out_is_left_to_the_task(session: Session) -> None:
    left_out, given = (
        session.execute(statement).scalar_one()
        for statement in (tasks.inventory.reconcile(), tasks.inventory.reconcile(after=7))
    )
    session.commit()

    assert [ledger.row(task_id).kwargs for task_id in (left_out, given)] == [{}, {"after": 7}]


def test_a_wrong_call_is_an_error_before_it_runs() -> None:
    """`make types` fails when one of these is none: an ignored error that does not exist is one."""
    with pytest.raises(TypeError):
        tasks.reservations.release()  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        tasks.reservations.release(42, how="softly")  # type: ignore[call-arg]
    tasks.reservations.release("42")  # type: ignore[arg-type]
    tasks.reservations.release(42, dedupe_key=42)  # type: ignore[arg-type]


class _Colour(StrEnum):
    RED = "red"


class _Level(Enum):
    LOW = 1


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        (int, "int"),
        (Optional[int], "int | None"),  # noqa: UP045 - as somebody may write it
        (list[int | str], "list[int | str]"),
        (tuple[int, ...], "list[int]"),
        (dict[str, list[float]], "dict[str, list[float]]"),
        (Literal["a", 'b"', 3], 'Literal["a", "b\\"", 3]'),
        (Annotated[int, "positive"], "int"),
        (UUID, "str"),
        (_Colour, "str"),
        (_Level, "Any"),
        (list, "list[Any]"),
        (Any, "Any"),
    ],
)
def test_an_annotation_is_shown_as_the_type_of_its_json(hint: Any, shown: str) -> None:
    assert client_tasks._hint(hint) == shown


def _clashing(delay: int) -> None:
    """Wait."""


def _declare(monkeypatch: pytest.MonkeyPatch, function: Any) -> str:
    monkeypatch.setattr(kinds, "_declared", {})
    monkeypatch.setattr(function, "__module__", "tasks.sample")
    jobs.declare("sample.import", function)
    return client_tasks.rendered()["sample.py"]


def test_a_function_that_is_rendered_compiles_whatever_its_task_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(how: Literal["soft", "hard"] = "soft", *, numbers: list[int]) -> None:
        """Do what it says.

        And more.
        """

    source = _declare(monkeypatch, typed)

    compile(source, "sample.py", "exec")
    assert 'def import_(\n    how: Literal["soft", "hard"] = UNSET,\n    *,\n    numbers: list[int],\n' in source
    assert '"""Do what it says."""' in source
    assert '    return enqueue(\n        "sample.import",\n        how=how,\n        numbers=numbers,\n' in source


def test_a_parameter_with_the_name_of_an_option_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidTask, match="the parameter delay, which is an option of every job"):
        _declare(monkeypatch, _clashing)
