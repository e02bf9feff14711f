"""docker-compose.yml says what it must, without a Docker engine: the schema, the house rules and its secrets.

What a schema cannot say is in `problems`: one line for each broken rule. Each rule has its negative control.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import redis

from db.settings import POOLS, Settings
from stack import binaries
from tests.docs.compose import COMPOSE, ROOT, free_port, largest_environment, load, make_secrets, problems, run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PASSWORD_IN_URL = re.compile(r"://[^/\s:@]*:(?!\$)[^/\s@]+@")


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory that the recipe at the top of the file makes."""
    return make_secrets(tmp_path_factory.mktemp("compose"))


def _break(service: str, key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(compose: dict[str, Any]) -> None:
        compose["services"][service][key] = value

    return apply


def test_the_file_fits_the_compose_schema() -> None:
    done = _check_schema(COMPOSE)

    assert done.returncode == 0, done.stdout


def test_the_schema_check_refuses_an_unknown_key(tmp_path: Path) -> None:
    broken = tmp_path / "docker-compose.yml"
    broken.write_text(COMPOSE.read_text("utf-8").replace("read_only: true", "readonly: true"), "utf-8")

    done = _check_schema(broken)

    assert done.returncode == 1
    assert "readonly" in done.stdout


def test_every_service_keeps_the_house_rules() -> None:
    assert problems(load()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_break("beat", "healthcheck", {}), "beat: has no health check"),
        (_break("beat", "restart", "always"), "beat: is not restarted"),
        (_break("migrate", "restart", "unless-stopped"), "beat: waits for migrate with the wrong condition"),
        (_break("cache", "image", "redis:latest"), "cache: image is not pinned to a version"),
        (_break("cache", "image", "redis"), "cache: image is not pinned to a version"),
        (_break("cache", "user", None), "cache: runs as root"),
        (_break("flower", "read_only", False), "flower: can write to its root file system"),
        (_break("flower", "cap_drop", []), "flower: keeps or gains privileges"),
        (_break("flower", "ports", ["5555:5555"]), "flower: publishes a port beyond this host"),
        (_break("postgres", "networks", ["front"]), "postgres: is in front, which is not internal"),
        (
            _break("postgres", "environment", {"POSTGRES_PASSWORD": "x"}),
            "postgres: POSTGRES_PASSWORD does not come from a secret of this service",
        ),
        (
            _break("flower", "secrets", ["database_url", "broker_url", "cache_url", "flower_cookie_secret"]),
            "flower: HARBOR_FLOWER_PASSWORD_FILE does not come from a secret of this service",
        ),
    ],
)
def test_a_broken_rule_is_reported(change: Callable[[dict[str, Any]], None], problem: str) -> None:
    compose = load()
    change(compose)

    assert problem in problems(compose)


def test_no_password_stands_in_the_file() -> None:
    assert not PASSWORD_IN_URL.search(COMPOSE.read_text("utf-8"))
    assert PASSWORD_IN_URL.search("redis://harbor:hunter2@broker:6379/0")


def test_each_pool_has_a_worker_that_answers_under_its_name() -> None:
    for pool in POOLS:
        worker = load()["services"][f"worker-{pool}"]

        assert worker["command"][:3] == ["worker", "--pool", pool]
        assert worker["healthcheck"]["test"][1].endswith(f"--destination {pool}@$$HOSTNAME")


def test_the_recipe_makes_every_secret_for_its_owner_alone(secrets: Path) -> None:
    declared = load()["secrets"].values()

    for secret in declared:
        path = secrets.parent / secret["file"]

        assert path.read_text("utf-8").strip()
        # The user of a container is "other"; on the host nobody else gets through the directory.
        assert path.stat().st_mode & 0o777 == 0o644
    assert secrets.stat().st_mode & 0o777 == 0o700


def test_settings_accept_what_the_recipe_makes(secrets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("HARBOR_")]:
        monkeypatch.delenv(name)
    for name, value in largest_environment(secrets).items():
        monkeypatch.setenv(name, value)

    told = Settings()

    assert told.env == "prod"
    assert told.flower_password is not None
    assert told.flower_cookie_secret is not None


@pytest.mark.parametrize("name", ["broker", "cache"])
def test_a_real_server_takes_the_arguments_and_lets_only_harbor_in(name: str, secrets: Path, tmp_path: Path) -> None:
    url = (secrets / f"{name}_url").read_text("utf-8").strip()
    port = free_port()
    arguments = [argument.replace("/run/secrets", str(secrets)) for argument in load()["services"][name]["command"]]
    server = subprocess.Popen(
        [binaries.find().redis, *arguments, "--port", str(port), "--bind", "127.0.0.1", "--protected-mode", "no"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )
    try:
        with (
            redis.Redis(port=port) as anybody,
            redis.Redis.from_url(url.replace(f"{name}:6379", f"127.0.0.1:{port}")) as harbor,
        ):
            _wait_for(anybody)

            with pytest.raises(redis.exceptions.NoPermissionError):
                anybody.set("stolen", 1)
            assert harbor.set("mine", 1)
            assert harbor.config_get("maxmemory-policy")["maxmemory-policy"] == arguments[-1]
    finally:
        server.kill()
        server.wait()


def _wait_for(client: redis.Redis) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            client.ping()
        except redis.exceptions.ConnectionError:
            if time.monotonic() > deadline:
                raise
        else:
            return


def _check_schema(file: Path) -> subprocess.CompletedProcess[str]:
    return run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(file)], ROOT, {}
    )
