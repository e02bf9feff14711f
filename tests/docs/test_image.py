"""The image holds every command that docker-compose.yml starts, and no more than what runs, without a Docker engine.

The commands run in a copy of what the Dockerfile copies, where the parts that only a checkout has cannot be imported.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.compose import (
    DOCKERFILE,
    PINNED,
    ROOT,
    copied,
    copy_image,
    largest_environment,
    load,
    make_secrets,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path

SERVICES = {name: service for name, service in load()["services"].items() if service["image"].startswith("harbor:")}
IN_THE_IMAGE = """
import sys
# The checkout itself is installed in place; the image holds only what was copied.
sys.meta_path[:] = [finder for finder in sys.meta_path if not finder.__module__.startswith("__editable__")]
from cli import main
sys.argv[0] = "harbor"
sys.exit(main())
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables and secrets that a container gets."""
    return largest_environment(make_secrets(tmp_path_factory.mktemp("compose")))


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Dockerfile copies of the checkout, and nothing else."""
    return copy_image(tmp_path_factory.mktemp("image"))


@pytest.mark.parametrize("service", SERVICES)
def test_the_image_has_the_command_of(service: str, image: Path, environment: dict[str, str]) -> None:
    done = run([sys.executable, "-c", IN_THE_IMAGE, *SERVICES[service]["command"], "--help"], image, environment)

    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_a_command_that_does_not_exist_is_refused(image: Path, environment: dict[str, str]) -> None:
    done = run([sys.executable, "-c", IN_THE_IMAGE, "nonsense", "--help"], image, environment)

    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.mark.parametrize(
    "test",
    [service["healthcheck"]["test"][1] for service in SERVICES.values() if "celery" in str(service.get("healthcheck"))],
)
def test_celery_knows_the_health_check(test: str, image: Path, environment: dict[str, str]) -> None:
    program, *arguments = shlex.split(test.replace("$$HOSTNAME", "host"))

    done = run([sys.executable, "-m", program, *arguments, "--help"], image, environment)

    assert done.returncode == 0, done.stderr
    assert "ping" in arguments


def test_the_image_is_not_root_and_its_base_is_pinned() -> None:
    bases = [line.split()[1] for line in DOCKERFILE if line.startswith("FROM ")]
    users = [line.split()[1] for line in DOCKERFILE if line.startswith("USER ")]

    assert len(set(bases)) == 1
    assert all(PINNED.match(base) for base in bases)
    assert users
    assert int(users[-1].split(":")[0]) > 0


def test_the_image_holds_only_what_runs() -> None:
    assert [source for source in copied() if not (ROOT / source).exists()] == []
    assert not {"stack", "demo", "bench", "tests"} & set(copied())


def test_the_build_sees_only_what_the_dockerfile_copies() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]

    assert rules[0] == "*"
    assert sorted(rule[1:].rstrip("/") for rule in rules if rule.startswith("!")) == sorted(copied())
