"""What the tests of docker-compose.yml and of the image share: both files, their rules, and the secrets."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8").splitlines()

# A version, and not a tag that moves from one major version to the next.
PINNED = re.compile(r"^[a-z/]+:\d+(\.\d+)*(-[a-z-]+)?$")
_STORES = {"postgres", "broker", "cache"}


def load() -> dict[str, Any]:
    """docker-compose.yml, its anchors resolved."""
    compose: dict[str, Any] = yaml.safe_load(COMPOSE.read_text("utf-8"))
    return compose


def make_secrets(place: Path) -> Path:
    """Follow the recipe at the top of docker-compose.yml in `place`; return the directory that it makes."""
    recipe = [line[6:] for line in COMPOSE.read_text("utf-8").splitlines() if line.startswith("#     ")]
    subprocess.run(["/bin/sh", "-c", "\n".join(recipe)], cwd=place, check=True, timeout=10)
    return place / "secrets"


def copied() -> list[str]:
    """What the Dockerfile copies of the checkout."""
    copies = [line.split()[1:] for line in DOCKERFILE if line.startswith("COPY ") and "--from" not in line]
    return [source.rstrip("/") for words in copies for source in words[:-1]]


def copy_image(directory: Path) -> Path:
    """Copy what the Dockerfile copies of the checkout, and nothing else."""
    for source in copied():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, directory / source, ignore=shutil.ignore_patterns("__pycache__"))
        elif (ROOT / source).is_file():
            (directory / source).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / source, directory / source)
    return directory


def entrypoint() -> list[str]:
    """What the image runs before a service's command."""
    (told,) = [line.removeprefix("ENTRYPOINT ") for line in DOCKERFILE if line.startswith("ENTRYPOINT ")]
    words: list[str] = json.loads(told)
    return words


def largest_environment(secrets: Path) -> dict[str, str]:
    """Flower's environment, with the files of its secrets where the recipe put them."""
    environment = load()["services"]["flower"]["environment"]
    return {name: value.replace("/run/secrets", str(secrets)) for name, value in environment.items()}


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def run(command: list[str], directory: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command that knows nothing of this process's Harbor variables."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HARBOR_")}
    return subprocess.run(
        command,
        cwd=directory,
        env={**inherited, **environment, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def problems(compose: dict[str, Any]) -> list[str]:
    """One line for each rule that the file breaks."""
    services, networks = compose["services"], compose["networks"]
    found = [
        f"{name}: {problem}"
        for name, service in services.items()
        for check in (_confinement, _health, _exposure, _secrets)
        for problem in check(service)
    ]
    for name, service in services.items():
        for other, wish in service.get("depends_on", {}).items():
            one_shot = services[other].get("restart") == "no"
            if wish["condition"] != ("service_completed_successfully" if one_shot else "service_healthy"):
                found.append(f"{name}: waits for {other} with the wrong condition")
    found += [
        f"{name}: is in {network}, which is not internal"
        for name in _STORES
        for network in services[name]["networks"]
        if not networks[network].get("internal")
    ]
    return found


def _confinement(service: dict[str, Any]) -> Iterator[str]:
    if not PINNED.match(service["image"]):
        yield "image is not pinned to a version"
    if not service["image"].startswith("harbor:") and service.get("user") in {None, "root", "0"}:
        yield "runs as root"
    if service.get("read_only") is not True:
        yield "can write to its root file system"
    if service.get("cap_drop") != ["ALL"] or service.get("security_opt") != ["no-new-privileges:true"]:
        yield "keeps or gains privileges"
    if "mem_limit" not in service:
        yield "has no memory limit"


def _health(service: dict[str, Any]) -> Iterator[str]:
    if service.get("restart") == "no":
        return
    if service.get("restart") != "unless-stopped":
        yield "is not restarted"
    if service.get("healthcheck", {}).get("test", ["NONE"])[0] not in {"CMD", "CMD-SHELL"}:
        yield "has no health check"


def _exposure(service: dict[str, Any]) -> Iterator[str]:
    if any(not port.startswith("127.0.0.1:") for port in service.get("ports", [])):
        yield "publishes a port beyond this host"


def _secrets(service: dict[str, Any]) -> Iterator[str]:
    for name, value in service.get("environment", {}).items():
        if not re.search("PASSWORD|SECRET|URL", name):
            continue
        if not name.endswith("_FILE") or value.removeprefix("/run/secrets/") not in service.get("secrets", []):
            yield f"{name} does not come from a secret of this service"
