"""An embedded PostgreSQL and Valkey on free loopback ports: for a laptop, the demo, the bench and the tests.

Promise: `with running() as stack` gives two durable servers within seconds, and nothing of them is left afterwards, not
even when the process that entered it is killed with SIGKILL.
"""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from threading import Lock
from typing import IO, Any

from stack import binaries
from stack.binaries import URL_VARIABLES, postgres_binary
from stack.errors import (
    ForeignServersError,
    MissingBinaryError,
    PartlyConfiguredError,
    ServerDiedError,
    StackError,
    StartError,
    UnknownServersError,
)

__all__ = [
    "ForeignServersError",
    "MissingBinaryError",
    "PartlyConfiguredError",
    "ServerDiedError",
    "Stack",
    "StackError",
    "StartError",
    "UnknownServersError",
    "postgres_binary",
    "running",
]

# Longer than the keeper gives its two servers, one after the other.
STOP_SECONDS = 60


@dataclass
class Stack:
    """Servers that run.

    Attributes:
        environ: HARBOR_DATABASE_URL, HARBOR_BROKER_URL and HARBOR_CACHE_URL, for this process and its children.
    """

    environ: dict[str, str]
    _keeper: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    _problem: str | None = field(default=None, repr=False)

    _restarts: Iterator[int] = field(default_factory=count, repr=False)
    _talking: Lock = field(default_factory=Lock, repr=False)

    @property
    def owned(self) -> bool:
        """Whether the servers are this stack's own, and not those of the environment's URLs."""
        return self._keeper is not None

    def check(self, wait_seconds: float = 0) -> None:
        """Look whether the servers still run, or wait so long for one to end. Servers of others are not looked at.

        Raises:
            ServerDiedError: one of them ended by itself, and the other one is stopped.
        """
        # Whoever restarts a server at this moment hears of its death.
        if not self._talking.acquire(timeout=wait_seconds):
            return
        try:
            if self._keeper is not None and self._problem is None:
                assert self._keeper.stdout is not None
                news, _, _ = select.select([self._keeper.stdout], [], [], wait_seconds)
                if news:
                    self._listen()
            if self._problem is not None:
                raise ServerDiedError(self._problem)
        finally:
            self._talking.release()

    def restart_postgres(self, *, immediate: bool = False) -> None:
        """Restart PostgreSQL on the same port and data; every connection to it is lost. Returns when it serves again.

        Args:
            immediate: end it as a crash would, so that it recovers, rather than by a fast shutdown.

        Raises:
            ForeignServersError: the servers are not this stack's own.
            ServerDiedError: a server had died, or it did not come back; none runs any more.
        """
        self._restart("postgres", immediate=immediate, empty=False)

    def restart_redis(self, *, empty: bool, immediate: bool = False) -> None:
        """Restart Valkey on the same port; every connection to it is lost. Returns when it serves again.

        Args:
            empty: without its data, those of broker and cache alike.
            immediate: end it with SIGKILL, so that up to a second of writes may be lost.

        Raises:
            ForeignServersError: the servers are not this stack's own.
            ServerDiedError: a server had died, or it did not come back; none runs any more.
        """
        self._restart("redis", immediate=immediate, empty=empty)

    def _restart(self, server: str, *, immediate: bool, empty: bool) -> None:
        if self._keeper is None:
            raise ForeignServersError(
                f"{', '.join(URL_VARIABLES)} lead to servers that somebody else started: who did may restart them."
            )
        assert self._keeper.stdin is not None
        with self._talking:
            number = next(self._restarts)
            wish = {"restart": server, "immediate": immediate, "empty": empty, "number": number}
            # A keeper that is dead does not read; its pipe says so below.
            with contextlib.suppress(BrokenPipeError):
                self._keeper.stdin.write(json.dumps(wish).encode() + b"\n")
                self._keeper.stdin.flush()
            # An earlier answer is one that an interrupted call did not wait for.
            while self._problem is None and self._listen().get("restarted") != number:
                pass
            if self._problem is not None:
                raise ServerDiedError(self._problem)

    def _listen(self) -> dict[str, Any]:
        assert self._keeper is not None
        assert self._keeper.stdout is not None
        line = self._keeper.stdout.readline()
        news: dict[str, Any] = json.loads(line) if line else {"error": "the keeper of the servers died"}
        self._problem = news.get("error")
        return news


@contextlib.contextmanager
def running(directory: Path | None = None) -> Iterator[Stack]:
    """Run PostgreSQL and Valkey for the length of the block.

    When all three URLs are set in the environment, those servers are used and none is started. HARBOR_STACK_SERVERS
    says whose programs are started: the installed wheels' when it is unset, Debian's when it is `debian`.

    Args:
        directory: where the data are kept, and found again by the next start (the ports may differ, the passwords do
            not). Without one they live in a temporary directory that is removed at the end. When root asks for a
            directory that `nobody` cannot enter, the data are in /var/tmp and a link `data` leads there.

    A server that dies is not started again: `Stack.check` tells of it.

    Raises:
        PartlyConfiguredError: some of the three URLs are set and some are not.
        MissingBinaryError: a server's program is not installed.
        UnknownServersError: HARBOR_STACK_SERVERS says something else than `debian`.
        StartError: a server did not start, or another stack has the directory.
    """
    given = _given()
    if given:
        yield Stack(given)
        return
    binaries.find()
    with tempfile.TemporaryFile() as log:
        keeper = _start_keeper(log)
        try:
            yield Stack(_ask(keeper, directory, log), keeper)
        finally:
            _stop(keeper)


def _given() -> dict[str, str]:
    # Elsewhere only db.settings reads the environment; the stack may import nothing of ours, so it looks itself.
    given = {name: os.environ[name] for name in URL_VARIABLES if os.environ.get(name)}
    missing = [name for name in URL_VARIABLES if name not in given]
    if given and missing:
        raise PartlyConfiguredError(
            f"{', '.join(given)} set, but not {', '.join(missing)}: set all three, or none to start the stack."
        )
    return given


def _start_keeper(log: IO[bytes]) -> subprocess.Popen[bytes]:
    here = str(Path(__file__).resolve().parent.parent)
    paths = [here, *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "stack.keeper"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        cwd="/",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        # A terminal's Ctrl-C must not reach the servers before their user is done with them.
        start_new_session=True,
    )


def _ask(keeper: subprocess.Popen[bytes], directory: Path | None, log: IO[bytes]) -> dict[str, str]:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    request = {"parent": os.getpid(), "directory": None if directory is None else str(directory.resolve())}
    # A keeper that is already dead does not read; its log says why.
    with contextlib.suppress(BrokenPipeError):
        keeper.stdin.write(json.dumps(request).encode() + b"\n")
        keeper.stdin.flush()
    line = keeper.stdout.readline()
    if not line:
        log.seek(0)
        raise StartError(
            f"the keeper of the servers died; its log ends:\n{log.read().decode(errors='replace')[-2000:]}"
        )
    answer: dict[str, dict[str, str]] = json.loads(line)
    if "error" in answer:
        raise StartError(answer["error"])
    return answer["environ"]


def _stop(keeper: subprocess.Popen[bytes]) -> None:
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    # A forked child may hold the pipe open, so closing it does not suffice.
    keeper.terminate()
    with contextlib.suppress(BrokenPipeError):
        keeper.stdin.close()
    keeper.stdout.close()
    try:
        keeper.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        keeper.kill()
        keeper.wait()
