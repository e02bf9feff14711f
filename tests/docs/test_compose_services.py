"""Every service of docker-compose.yml does what the file says: it starts, becomes healthy and stops, without Docker.

Harbor's own run all at the same time, on the file's broker and cache and on a PostgreSQL of the stack. Each is asked
for its health before its start, too, and must not be healthy then.
"""

from __future__ import annotations

import os
import shutil
import socket
import sysconfig
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest
import redis
from psycopg import sql
from sqlalchemy.engine import make_url

import stack
from stack import binaries
from tests.conftest import str_url
from tests.docs.compose import copy_image, free_port, load, make_secrets
from tests.docs.services import Life, Service
from tests.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import URL

SERVICES = load()["services"]
LASTING = [name for name, service in SERVICES.items() if service["image"].startswith("harbor:") and name != "migrate"]
REDIS_CLI = shutil.which("redis-cli") or shutil.which("valkey-cli")
START_SECONDS = 30


@dataclass(frozen=True)
class Host:
    """A directory with what the recipe makes and what the image holds, and a port for each name of the network."""

    root: Path
    ports: dict[str, int]

    def store(self, name: str, port: int) -> Service:
        """The broker or the cache, on a port."""
        directory = self.root / f"{name}-{port}"
        directory.mkdir()
        programs = {
            "redis-server": f'{binaries.find().redis} "$@" --bind 127.0.0.1 --port {port}',
            "redis-cli": f'{REDIS_CLI} -p {port} "$@"',
        }
        for program, command in programs.items():
            (directory / program).write_text(f"#!/bin/sh\nexec {command}\n")
            (directory / program).chmod(0o755)
        environ = {"PATH": f"{directory}{os.pathsep}{os.defpath}"}
        return Service(SERVICES[name], directory, directory / "log", environ, self._here)

    def harbor(self, name: str) -> Service:
        """A service of Harbor's own image."""
        environ = {
            "HOSTNAME": socket.gethostname(),
            "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.defpath}",
            # The code of the image, not of the checkout that this environment has installed in place.
            "PYTHONPATH": str(self.root / "image"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self.root / "tmp"),
            "HARBOR_FLOWER_PORT": str(self.ports["flower"]),
        }
        return Service(SERVICES[name], self.root / "image", self.root / f"{name}.log", environ, self._here)

    @property
    def _here(self) -> dict[str, str]:
        return {
            "/run/secrets": str(self.root / "secrets"),
            "/tmp": str(self.root / "tmp"),
            "127.0.0.1:5555": f"127.0.0.1:{self.ports['flower']}",
        }


@pytest.fixture(scope="module")
def postgres() -> Iterator[URL]:
    """An empty PostgreSQL of the stack's own, whatever servers the other tests use."""
    with pytest.MonkeyPatch.context() as patch:
        for name in binaries.URL_VARIABLES:
            patch.delenv(name, raising=False)
        with stack.running() as servers:
            yield make_url(servers.environ["HARBOR_DATABASE_URL"])


@pytest.fixture(scope="module")
def host(postgres: URL, tmp_path_factory: pytest.TempPathFactory) -> Host:
    """A host whose PostgreSQL has the recipe's password; the stores' names in the URLs lead to this machine's ports."""
    root = tmp_path_factory.mktemp("host")
    copy_image(root / "image")
    (root / "tmp").mkdir()
    secrets = make_secrets(root)
    password = (secrets / "postgres_password").read_text()
    with psycopg.connect(str_url(postgres.set(drivername="postgresql"))) as connection:
        connection.execute(sql.SQL("ALTER ROLE harbor PASSWORD {}").format(password))
    ports = {"postgres": postgres.port or 5432} | {name: free_port() for name in ("broker", "cache", "flower")}
    for file, name in {"database_url": "postgres", "broker_url": "broker", "cache_url": "cache"}.items():
        url = make_url((secrets / file).read_text().strip())
        (secrets / file).write_text(str_url(url.set(host="127.0.0.1", port=ports[name])))
    return Host(root, ports)


@pytest.fixture(scope="module")
def migrated(host: Host) -> tuple[int, str]:
    """How the first migration ended, and what it said."""
    return ended(host.harbor("migrate"))


@pytest.fixture(scope="module")
def lives(host: Host, migrated: tuple[int, str]) -> Iterator[dict[str, Future[Life]]]:
    """The life of each of Harbor's lasting services, all at the same time, while the broker and the cache run."""
    with (
        host.store("broker", host.ports["broker"]).running() as broker,
        host.store("cache", host.ports["cache"]).running() as cache,
        ThreadPoolExecutor(len(LASTING)) as pool,
    ):
        wait_until(partial(answers, host.ports["broker"]), START_SECONDS, broker)
        wait_until(partial(answers, host.ports["cache"]), START_SECONDS, cache)
        yield {name: pool.submit(host.harbor(name).live) for name in LASTING}


def ended(service: Service) -> tuple[int, str]:
    """The exit code of a one-shot service, and what it said."""
    with service.running() as running:
        wait_until(lambda: not running.runs(), START_SECONDS, running)
        return running.popen.wait(), running.text()


def answers(port: int) -> bool:
    """Whether a Redis server on a port answers anybody's ping."""
    with redis.Redis(port=port) as anybody:
        try:
            return bool(anybody.ping())
        except redis.RedisError:
            return False


def test_every_service_is_looked_at() -> None:
    assert {"postgres", "broker", "cache", "migrate", *LASTING} == set(SERVICES)


@pytest.mark.parametrize("name", ["broker", "cache"])
def test_a_store_starts_becomes_healthy_and_stops_in_time(name: str, host: Host) -> None:
    if REDIS_CLI is None:
        pytest.skip("no redis-cli and no valkey-cli is installed, which the health check runs")

    life = host.store(name, free_port()).live()

    assert not life.healthy_before
    assert life.exit_code == 0, life.log


def test_postgres_is_healthy_while_it_runs(host: Host, tmp_path: Path) -> None:
    programs = f"{stack.postgres_binary('pg_isready').parent}{os.pathsep}{os.defpath}"

    def healthy(port: int) -> bool:
        environ = {"PATH": programs, "PGPORT": str(port)}
        return Service(SERVICES["postgres"], tmp_path, tmp_path / "log", environ).is_healthy()

    assert healthy(host.ports["postgres"])
    assert not healthy(free_port())


def test_the_migration_does_nothing_the_second_time(host: Host, migrated: tuple[int, str]) -> None:
    (first_code, first), (second_code, second) = migrated, ended(host.harbor("migrate"))

    assert (first_code, second_code) == (0, 0)
    assert "stays at" not in first
    assert "stays at" in second


@pytest.mark.parametrize("name", LASTING)
def test_a_service_starts_becomes_healthy_and_stops_in_time(name: str, lives: dict[str, Future[Life]]) -> None:
    life = lives[name].result()

    assert not life.healthy_before
    assert life.exit_code == 0, life.log


def test_they_write_nothing_beside_the_code(host: Host, lives: dict[str, Future[Life]], tmp_path: Path) -> None:
    for life in lives.values():
        life.result()
    image, untouched = host.root / "image", copy_image(tmp_path)

    assert {path.relative_to(image) for path in image.rglob("*")} == {
        path.relative_to(untouched) for path in untouched.rglob("*")
    }


@pytest.mark.parametrize(
    ("on_sigterm", "code"), [("exit 0", 0), ("exit 3", 3), ("", None)], ids=["ends", "fails", "stays"]
)
def test_a_service_that_does_not_end_well_would_be_seen(on_sigterm: str, code: int | None, tmp_path: Path) -> None:
    told = {
        "entrypoint": ["/bin/sh", "-c"],
        "command": [f"trap '{on_sigterm}' TERM; touch healthy; while :; do sleep 0.1; done"],
        "healthcheck": {"test": ["CMD-SHELL", "test -e healthy"], "timeout": "3s"},
        "stop_grace_period": "1s",
    }

    life = Service(told, tmp_path, tmp_path / "log", {"PATH": os.defpath}).live()

    assert life == Life(healthy_before=False, exit_code=code, log="")
