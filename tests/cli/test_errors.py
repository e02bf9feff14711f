from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError, ProgrammingError

from cli.errors import explain
from cli.hints import typed
from db import engine
from db.errors import ReservationNotFound, VariantNotFound
from db.settings import URLS, settings
from tests.conftest import str_url
from tests.processes import program, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import Harbor


def use_database(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_DATABASE_URL", url)
    settings.cache_clear()
    engine.dispose()


def test_a_refusal_is_one_line_and_exit_code_1(environ: dict[str, str]) -> None:
    answer = run([program("harbor"), "reservations", "show", "7"], environ)

    assert answer.returncode == 1
    assert answer.stdout == ""
    assert answer.stderr == "harbor: Reservation 7 does not exist.\n"


def test_a_database_that_does_not_answer_is_named_without_its_password(
    environ: dict[str, str], harbor: Harbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_database("postgresql+psycopg://harbor:s3cret@127.0.0.1:1/harbor", monkeypatch)

    answer = harbor("reservations", "list")

    assert answer.code == 1
    assert answer.err.startswith("harbor: HARBOR_DATABASE_URL leads to no database: ")
    assert "Connection refused" in answer.err
    assert answer.err.count("\n") == 1
    assert "s3cret" not in answer.err


def test_a_wrong_password_is_not_repeated(
    environ: dict[str, str], harbor: Harbor, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_database(str_url(make_url(environ["HARBOR_DATABASE_URL"]).set(password="s3cret")), monkeypatch)

    answer = harbor("db", "current")

    assert answer.code == 1
    assert "password authentication failed" in answer.err
    assert "s3cret" not in answer.err


def test_an_empty_database_is_told_from_a_broken_one(environ: dict[str, str], harbor: Harbor) -> None:
    assert harbor("db", "downgrade", "base").code == 0

    answer = harbor("reservations", "list")

    assert answer.code == 1
    assert f"run {typed('`harbor db upgrade`')}" in answer.err


@pytest.mark.parametrize("command", ["reservations list", "db current", "worker", "beat", "flower"])
def test_a_missing_url_is_named(harbor: Harbor, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    for name in URLS:
        monkeypatch.delenv(name, raising=False)
    settings.cache_clear()
    engine.dispose()

    answer = harbor(*command.split())
    settings.cache_clear()

    assert answer.code == 1
    assert answer.err.startswith("harbor: HARBOR_DATABASE_URL is not set; start everything")
    assert "is found from its own directory only" in answer.err
    assert answer.err.count("\n") == 1


def test_urls_left_by_a_killed_up_are_said_to_be_left_over(
    harbor: Harbor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in (*URLS, "HARBOR_ENV"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".harbor").mkdir()
    (tmp_path / ".harbor" / "stack.env").write_text(
        "HARBOR_DATABASE_URL='postgresql+psycopg://harbor:s3cret@127.0.0.1:1/harbor'\n"
        "HARBOR_BROKER_URL='redis://127.0.0.1:1/0'\nHARBOR_CACHE_URL='redis://127.0.0.1:1/1'\n"
    )
    settings.cache_clear()
    engine.dispose()

    answer = harbor("reservations", "list")
    settings.cache_clear()
    engine.dispose()

    assert answer.code == 1
    assert answer.err.startswith("harbor: .harbor/stack.env is left over from ")
    assert "HARBOR_DATABASE_URL" not in answer.err
    assert "s3cret" not in answer.err


def test_a_directory_that_cannot_be_written_is_named(environ: dict[str, str], harbor: Harbor, tmp_path: Path) -> None:
    (tmp_path / ".harbor").write_text("not a directory")

    answer = harbor("up")

    assert answer.code == 1
    assert answer.err == "harbor: .harbor: File exists\n"


def test_a_name_from_outside_cannot_forge_a_line() -> None:
    message = explain(VariantNotFound(variant_ids=["mug\nharbor: all is well\x1b[2J"]))

    assert message == "Variant mug\\nharbor: all is well\\x1b[2J does not exist."


def test_what_the_database_refuses_is_one_line() -> None:
    refused = OperationalError("SELECT 1", {}, psycopg.errors.LockNotAvailable("canceling statement\nCONTEXT: x"))

    assert explain(refused) == "the database refused: canceling statement"


def test_a_missing_privilege_is_one_line_that_says_where_the_grants_are() -> None:
    denied = psycopg.errors.InsufficientPrivilege("permission denied for table variants\nCONTEXT: x")

    message = explain(ProgrammingError("SELECT 1", {}, denied))

    assert message is not None
    assert message.startswith("the database role may not do this (permission denied for table variants): docs/")


def test_a_server_that_lets_nobody_in_is_not_called_absent() -> None:
    full = psycopg.OperationalError("connection failed: FATAL:  sorry, too many clients already")

    message = explain(OperationalError("SELECT 1", {}, full))

    assert message == "the database refused: connection failed: FATAL:  sorry, too many clients already"


def test_a_defect_keeps_its_traceback() -> None:
    assert explain(ZeroDivisionError()) is None
    assert explain(OperationalError("SELECT 1", {}, ZeroDivisionError())) is None
    assert explain(ReservationNotFound(reservation_id=7)) is not None
