"""A shopper's transaction outlives the server: real connections are cut before, in and after the COMMIT."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from db import session as sessions
from db.session import snapshot
from demo import survive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm import Session

ADD = text("UPDATE told SET times = times + 1 RETURNING times")


@pytest.fixture(autouse=True)
def told(environ: dict[str, str]) -> None:
    with sessions.transaction() as session:
        session.execute(text("CREATE TABLE told AS SELECT 0 AS times"))


@pytest.fixture
def counted() -> Counter[str]:
    return Counter()


def times() -> int:
    with snapshot() as session:
        return int(session.execute(text("SELECT times FROM told")).scalar_one())


def transact(counted: Counter[str], *, over: bool = False) -> int:
    return survive.transact(
        lambda session: int(session.execute(ADD).scalar_one()),
        over=lambda: over,
        count=lambda what: counted.update([what]),
    )


def cut(session: Session) -> None:
    """End the session's connection on the server's side, as a restart does."""
    pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with sessions.transaction() as other:
        other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})


@pytest.fixture
def cut_before_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first transaction loses its server after its last statement."""
    cuts = iter([cut])

    @contextmanager
    def transaction() -> Iterator[Session]:
        with sessions.transaction() as session:
            yield session
            next(cuts, lambda _: None)(session)

    monkeypatch.setattr(survive, "transaction", transaction)


@pytest.fixture
def cut_after_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first transaction is committed, and its answer gets lost."""
    lost = iter([OperationalError("COMMIT", None, Exception("gone"), connection_invalidated=True)])

    @contextmanager
    def transaction() -> Iterator[Session]:
        with sessions.transaction() as session:
            yield session
        for error in lost:
            raise error

    monkeypatch.setattr(survive, "transaction", transaction)


def test_without_a_loss_it_is_done_once_and_nothing_is_counted(counted: Counter[str]) -> None:
    assert transact(counted) == times() == 1
    assert counted == {}


@pytest.mark.usefixtures("cut_before_commit")
def test_what_was_lost_before_its_commit_is_done_again(counted: Counter[str]) -> None:
    assert transact(counted) == times() == 1
    assert counted == {"retries": 1}


@pytest.mark.usefixtures("cut_after_commit")
def test_a_commit_whose_answer_got_lost_is_looked_up_and_not_done_again(counted: Counter[str]) -> None:
    assert transact(counted) == times() == 1
    assert counted == {"lost_answers": 1}


@pytest.mark.usefixtures("cut_after_commit")
def test_without_the_look_it_would_be_done_twice(counted: Counter[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survive, "_was_committed", lambda *_: False)

    transact(counted)

    assert times() == 2


@pytest.mark.usefixtures("cut_before_commit")
def test_who_is_sent_home_does_not_try_again(counted: Counter[str]) -> None:
    with pytest.raises(DBAPIError):
        transact(counted, over=True)

    assert times() == 0


def test_an_error_that_is_no_loss_is_raised() -> None:
    with pytest.raises(DBAPIError, match="division by zero"):
        survive.transact(lambda session: session.execute(text("SELECT 1/0")), over=lambda: False, count=print)


def test_a_lock_that_took_too_long_is_no_loss() -> None:
    def impatient(session: Session) -> None:
        session.execute(text("SET LOCAL lock_timeout = 1"))
        session.execute(ADD)

    with sessions.transaction() as other:
        other.execute(ADD)
        with pytest.raises(DBAPIError, match="lock timeout"):
            survive.transact(impatient, over=lambda: False, count=print)
