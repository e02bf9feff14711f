"""A stack restarts one of its servers in its place, and nobody takes that for a death."""

from __future__ import annotations

from threading import Thread
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis

import stack
from stack.binaries import SERVERS_VARIABLE, URL_VARIABLES, find
from tests.stack.processes import database, home_of, servers_in

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module", params=["", "debian"], ids=["wheels", "debian"])
def running(request: pytest.FixtureRequest) -> Iterator[stack.Stack]:
    """A stack of either kind of programs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in URL_VARIABLES:
            patch.delenv(name, raising=False)
        patch.setenv(SERVERS_VARIABLE, request.param)
        try:
            find()
        except stack.MissingBinaryError as error:
            pytest.skip(str(error))
        with stack.running() as servers:
            yield servers


def postmaster(running: stack.Stack) -> int:
    pid = (home_of(running.environ) / "postgres" / "postmaster.pid").read_text().partition("\n")[0]
    return int(pid)


def broker(running: stack.Stack) -> redis.Redis:
    return redis.Redis.from_url(running.environ["HARBOR_BROKER_URL"], decode_responses=True)


def redis_process(running: stack.Stack) -> int:
    with broker(running) as client:
        return int(client.info("server")["process_id"])


@pytest.mark.parametrize("immediate", [False, True])
def test_postgresql_comes_back_with_its_data_and_its_sessions_are_lost(running: stack.Stack, immediate: bool) -> None:
    before = postmaster(running)
    with psycopg.connect(database(running.environ)) as old:
        old.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        old.commit()

        running.restart_postgres(immediate=immediate)

        with pytest.raises(psycopg.OperationalError):
            old.execute("SELECT")
    with psycopg.connect(database(running.environ)) as new:
        answer = new.execute("SELECT answer FROM kept").fetchone()
        new.execute("DROP TABLE kept")

    assert answer == (42,)
    assert postmaster(running) != before
    running.check(0.5)


@pytest.mark.parametrize(
    ("empty", "immediate", "left"), [(False, False, "42"), (True, False, None), (True, True, None)]
)
def test_valkey_comes_back_with_its_data_or_without(
    running: stack.Stack, empty: bool, immediate: bool, left: str | None
) -> None:
    before = redis_process(running)
    with broker(running) as client:
        client.set("kept", "42")

        running.restart_redis(empty=empty, immediate=immediate)

    with broker(running) as client:
        assert client.get("kept") == left
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "volatile-lfu"}
    assert redis_process(running) != before
    running.check(0.5)


def test_a_death_after_a_restart_is_still_a_death(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SERVERS_VARIABLE, *URL_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    with stack.running() as servers:
        home = home_of(servers.environ)
        servers.restart_redis(empty=False)
        with broker(servers) as client:
            client.shutdown()

        with pytest.raises(stack.ServerDiedError, match="valkey ended with exit code 0"):
            servers.check(10)
        with pytest.raises(stack.ServerDiedError, match="valkey ended"):
            servers.restart_postgres()
    assert not servers_in(home)


def test_a_server_that_does_not_come_back_says_why_and_ends_the_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SERVERS_VARIABLE, *URL_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    with stack.running() as servers:
        home = home_of(servers.environ)
        (home / "postgres" / "PG_VERSION").write_text("9.6\n")

        with pytest.raises(stack.ServerDiedError, match=r"postgres does not serve(.|\n)*not compatible"):
            servers.restart_postgres()
    assert not servers_in(home)


def test_one_may_look_for_deaths_while_another_restarts(running: stack.Stack) -> None:
    restarting = Thread(target=running.restart_redis, kwargs={"empty": False})
    restarting.start()
    while restarting.is_alive():
        running.check(0.01)
    restarting.join()

    assert redis_process(running)


def test_servers_of_others_are_not_restarted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in URL_VARIABLES:
        monkeypatch.setenv(name, f"given://{name}")

    with stack.running() as servers:
        assert not servers.owned
        with pytest.raises(stack.ForeignServersError, match=r"HARBOR_DATABASE_URL.* somebody else started"):
            servers.restart_postgres()
        with pytest.raises(stack.ForeignServersError):
            servers.restart_redis(empty=True)
