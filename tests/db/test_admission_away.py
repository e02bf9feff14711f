"""Without Redis nobody is kept from buying: whatever is wrong with it, buyers are let in, and soon."""

from __future__ import annotations

import os
import select
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis, RedisError

import db.redis
from db import reservations
from db.reservations import admission
from db.settings import settings
from stack import binaries
from tests.db.sql import eventually
from tests.processes import Process, process, python, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

VARIANT = 7
DEADLINE_SECONDS = 30


@dataclass(frozen=True)
class Server:
    """A Redis that a test can start, stop and start again on the same port."""

    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"redis://:{self.log.stem}@127.0.0.1:{self.port}/0"

    @contextmanager
    def running(self) -> Iterator[tuple[Process, Any]]:
        """Run it for the length of the block, and talk to it."""
        told = f"--port {self.port} --bind 127.0.0.1 --save --appendonly no --requirepass {self.log.stem}"
        command = [str(binaries.find().redis), *told.split(" "), "--dir", str(self.log.parent)]
        with process(command, os.environ, self.log) as running, Redis.from_url(self.url) as client:
            eventually(lambda: answers(client))
            yield running, client


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


@pytest.fixture
def cache_at(shared: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Lets a test say where the cache is; nothing is known yet about whether it answers, and it has little time to."""
    for name, value in shared.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(db.redis, "SOCKET_TIMEOUT_SECONDS", 0.4)
    monkeypatch.setattr(admission, "_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(admission, "_LEASE_MS", 60_000)
    monkeypatch.setattr(admission, "_away_until", 0.0)

    def at(url: str) -> None:
        monkeypatch.setenv("HARBOR_CACHE_URL", url)
        settings.cache_clear()

    yield at
    db.redis.cache().close()
    settings.cache_clear()


@pytest.fixture
def server(cache_at: Callable[[str], None], tmp_path: Path) -> Server:
    """A Redis of this test's own, not yet running, as this process's cache."""
    own = Server(free_port(), tmp_path / "s3cret.log")
    cache_at(own.url)
    return own


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines of the log about slots."""
    return lambda: [line for line in caplog.messages if line.startswith("slot.")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def is_let_in() -> bool:
    with reservations.slot(VARIANT, places=1):
        return True


# ---- what can be wrong -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "kind"),
    [
        (["CONFIG", "SET", "requirepass", "another"], "AuthenticationError"),
        (["REPLICAOF", "127.0.0.1", "1"], "ReadOnlyError"),
        (["CLIENT", "PAUSE", "60000"], "TimeoutError"),
        (["SET", "harbor:slot:{7}:places", "no set"], "ResponseError"),
    ],
)
def test_with_a_server_that_refuses_buyers_are_let_in_and_it_is_said_once(
    server: Server, told: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch, wrong: list[str], kind: str
) -> None:
    monkeypatch.setattr(admission, "_AWAY_SECONDS", 0)
    with server.running() as (_, client):
        client.execute_command(*wrong)

        assert all(is_let_in() for _ in range(3))

    assert told() == [f"slot.redis_is_away variant_id={VARIANT} kind={kind!r}"]


def test_with_no_server_buyers_are_let_in(server: Server, told: Callable[[], list[str]]) -> None:
    assert is_let_in()

    assert told() == ["slot.redis_is_away variant_id=7 kind='ConnectionError'"]


def test_without_the_guard_nobody_buys_when_there_is_no_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "redis", SimpleNamespace(RedisError=ZeroDivisionError))

    with pytest.raises(RedisError):
        is_let_in()


def test_with_a_server_that_accepts_and_never_answers_buyers_are_let_in(
    cache_at: Callable[[str], None], told: Callable[[], list[str]]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as hole:
        cache_at(f"redis://127.0.0.1:{hole.getsockname()[1]}/0")

        assert is_let_in()

    assert told() == ["slot.redis_is_away variant_id=7 kind='TimeoutError'"]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_who_waits_while_the_server_dies_is_let_in(server: Server, how: signal.Signals) -> None:
    with (
        server.running() as (running, client),
        ThreadPoolExecutor(1) as threads,
        reservations.slot(VARIANT, places=1),
    ):
        waiter = threads.submit(is_let_in)
        eventually(lambda: client.zcard("harbor:slot:{7}:waiters") == 1)

        running.popen.send_signal(how)

        assert waiter.result(DEADLINE_SECONDS)


def test_a_server_that_forgot_the_scripts_is_told_them_again(server: Server, told: Callable[[], list[str]]) -> None:
    with server.running() as (_, client):
        with reservations.slot(VARIANT, places=1):
            client.script_flush()
        client.script_flush()

        assert is_let_in()

    assert told() == []


def test_connections_from_before_a_restart_are_made_anew(server: Server, told: Callable[[], list[str]]) -> None:
    for _ in range(2):
        with server.running():
            assert is_let_in()

    assert told() == []


# ---- left alone for a while ------------------------------------------------------------------------------------------


def test_a_server_that_failed_is_left_alone_and_used_again_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "_AWAY_SECONDS", 3_600)
    assert is_let_in()

    with server.running() as (_, client):
        with reservations.slot(VARIANT):
            assert client.dbsize() == 0
        monkeypatch.setattr(admission, "_away_until", 1e-9)
        for _ in range(2):
            with reservations.slot(VARIANT):
                assert client.keys() == [b"harbor:slot:{7}:places"]


@pytest.mark.parametrize(("away_seconds", "others_ask"), [(3_600, False), (0, True)])
def test_while_one_buyer_asks_whether_it_is_back_the_others_do_not_wait(
    cache_at: Callable[[str], None], monkeypatch: pytest.MonkeyPatch, away_seconds: float, others_ask: bool
) -> None:
    monkeypatch.setattr(admission, "_AWAY_SECONDS", away_seconds)
    monkeypatch.setattr(admission, "_away_until", 1e-9)
    with socket.create_server(("127.0.0.1", 0)) as hole, ThreadPoolExecutor(1) as threads:
        cache_at(f"redis://127.0.0.1:{hole.getsockname()[1]}/0")
        asking = threads.submit(is_let_in)
        connection, _ = hole.accept()

        assert is_let_in()

        asked, _, _ = select.select([hole], [], [], 0)
        assert bool(asked) is others_ask
        assert asking.result(DEADLINE_SECONDS)
        connection.close()


# ---- what is said ----------------------------------------------------------------------------------------------------

BUY = "from db import reservations\nwith reservations.slot(7): print('inside')"


def test_a_process_without_a_log_of_its_own_says_it_on_stderr_and_without_the_password(server: Server) -> None:
    bought = run(python("-c", BUY), os.environ)

    assert bought.stdout == "inside\n"
    assert "slot.redis_is_away variant_id=7 kind='ConnectionError'" in bought.stderr
    assert "s3cret" not in bought.stderr
