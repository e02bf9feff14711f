"""A service of docker-compose.yml as a process of this machine: command, health check and grace as the file has them.

What Docker would do is done by the test: `$$` is `$`, and what a word of the file means in a container (/run/secrets, a
port) is what stands for it on this machine.
"""

from __future__ import annotations

import re
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.docs.compose import entrypoint
from tests.processes import process, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.processes import Process

# More than the longest start_period of the file: here all services start at once, on one machine.
_HEALTHY_SECONDS = 120
_DEFAULT_GRACE = "10s"

_IN_DIRECTORY = ("/bin/sh", "-c", 'cd "$0" && exec "$@"')


@dataclass(frozen=True)
class Life:
    """What was seen of a service before its start and at its end; `exit_code` is None when its grace was too short."""

    healthy_before: bool
    exit_code: int | None
    log: str


@dataclass(frozen=True)
class Service:
    """A service.

    Attributes:
        told: what the file says of it.
        directory: where its programs run.
        log: the file that it logs to.
        environ: what its image and its host give it.
        here: what stands on this machine for words of the file.
    """

    told: Mapping[str, Any]
    directory: Path
    log: Path
    environ: Mapping[str, str]
    here: Mapping[str, str] = field(default_factory=dict)

    @contextmanager
    def running(self) -> Iterator[Process]:
        """Run its command for the length of the block."""
        command = [*self.told.get("entrypoint", entrypoint()), *self.told["command"]]
        with process(self._command(command), self._environ(), self.log) as running:
            yield running

    def is_healthy(self) -> bool:
        """Whether its health check says so, within its timeout."""
        kind, *test = self.told["healthcheck"]["test"]
        command = ["/bin/sh", "-c", *test] if kind == "CMD-SHELL" else test
        try:
            checked = subprocess.run(
                self._command(command),
                env=self._environ(),
                capture_output=True,
                timeout=_seconds(self.told["healthcheck"]["timeout"]),
                check=False,
            )
        except subprocess.TimeoutExpired:
            return False
        return checked.returncode == 0

    def live(self) -> Life:
        """Ask for its health, start it, wait until it is healthy, and stop it as Compose does."""
        before = self.is_healthy()
        with self.running() as running:
            wait_until(lambda: self.is_healthy() or not running.runs(), _HEALTHY_SECONDS, running)
            assert running.runs(), running.text()
            running.popen.terminate()
            try:
                code = running.popen.wait(_seconds(self.told.get("stop_grace_period", _DEFAULT_GRACE)))
            except subprocess.TimeoutExpired:
                code = None
            return Life(before, code, running.text())

    def _command(self, command: list[str]) -> list[str]:
        return [*_IN_DIRECTORY, str(self.directory), *map(self._translate, command)]

    def _environ(self) -> dict[str, str]:
        told = {name: self._translate(value) for name, value in self.told.get("environment", {}).items()}
        return {**told, **self.environ}

    def _translate(self, word: str) -> str:
        here = {"$$": "$", **self.here}
        return re.sub("|".join(map(re.escape, here)), lambda found: here[found[0]], word)


def _seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))
