"""The process that owns the servers: `python -m stack.keeper`, started by `stack.running()` in a session of its own.

Promise: when the process that asked for the servers is done with them, or dies in any way, the servers are stopped and
the temporary directory is removed. A keeper that is itself killed with SIGKILL takes the servers with it on Linux (they
ask the kernel for a signal) and leaves its temporary directory; elsewhere it leaves the servers, too.

It reads one line of JSON, {"parent": pid, "directory": path or null}, and answers with one: {"environ": {...}} or
{"error": text}. Then each line {"restart": "postgres" or "redis", "immediate": bool, "empty": bool, "number": n} is
answered with {"restarted": n}. When a server dies, or does not come back, a line with an error says so, and the keeper
ends.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from stack import account, binaries, home
from stack.account import Account
from stack.errors import StackError, StartError
from stack.parent import AbandonedError, Parent
from stack.servers import HOST, PostgreSQL, Valkey
from stack.service import Service, end, open_log, tail

# Closing the pipe wakes the keeper at once; this is for a parent that was killed while a forked child holds the pipe.
PARENT_POLL_SECONDS = 0.25
LOCK_WAIT_SECONDS = 5  # The last stack of the same directory may still be stopping.
CREATE_SECONDS = 60
START_SECONDS = 60  # A kept directory may first recover from a crash.
PORT_ATTEMPTS = 5
PORT_BACK_SECONDS = 10  # While a server restarts, a connection of somebody else may have its port for a moment.
TAKEN = "Address already in use"


class Keeper:
    """Starts the servers of one directory for one parent, and stops them."""

    def __init__(self, parent: Parent, user: Account, where: Path, held: int) -> None:
        self._parent = parent
        self._account = user
        self._home = where
        self._held = held
        self._serving: dict[str, Service] = {}

    def create(self, server: PostgreSQL, scratch: Path) -> None:
        """Make PostgreSQL's data directory.

        Raises:
            StartError: initdb failed.
        """
        # Made under another name and renamed: an interrupted initdb must not be taken for data.
        draft = server.data.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        self._own_directory(draft)
        password_file = scratch / "password"
        home.private_file(password_file, server.password)
        self._account.own(password_file)
        log = self._home / "initdb.log"
        log.unlink(missing_ok=True)
        process = self._spawn(server.create_command(draft, password_file), log, signal.SIGTERM)
        try:
            self._parent.wait_for(lambda: process.poll() is not None, CREATE_SECONDS)
        finally:
            end(process, signal.SIGTERM)
            password_file.unlink()
        if process.returncode != 0:
            raise StartError(f"initdb failed ({process.returncode}): {tail(log)}")
        draft.rename(server.data)

    def prepare(self, server: Valkey) -> None:
        """Make Valkey's data directory, and the private file that its settings go to."""
        if not server.data.exists():
            self._own_directory(server.data)
        home.private_file(server.settings_file)
        self._account.own(server.settings_file)

    @contextlib.contextmanager
    def serving(self, key: str, server: PostgreSQL | Valkey) -> Iterator[int]:
        """Run a server on a free port, which is the value, and stop it at the end; `key` is its name for `restart`.

        Raises:
            StartError: it ended, or did not serve in time.
            AbandonedError: the parent is done.
        """
        log = self._home / f"{server.name}.log"
        for _ in range(PORT_ATTEMPTS):
            port = _free_port()
            log.unlink(missing_ok=True)
            service = Service(server, port, log, self._spawn(server.command(port), log, server.stop_signal))
            try:
                if self._serves(service):
                    self._serving[key] = service
                    yield port
                    return
            finally:
                service.end()
            # A free port is only known to have been free; somebody may have been quicker.
            if TAKEN not in tail(log):
                break
        raise StartError(service.silence)

    def restart(self, key: str, *, immediate: bool, empty: bool) -> None:
        """Stop a server (`immediate`: as a crash would), start it again on the same port, and `empty` if it is Valkey.

        Raises:
            StartError: it does not come back.
            AbandonedError: the parent is done.
        """
        service = self._serving[key]
        service.end(immediate=immediate)
        if empty and isinstance(service.server, Valkey):
            shutil.rmtree(service.server.data)
            self.prepare(service.server)
        deadline = time.monotonic() + PORT_BACK_SECONDS
        while True:
            before = service.log.stat().st_size
            command = service.server.command(service.port)
            service.process = self._spawn(command, service.log, service.server.stop_signal)
            if self._serves(service):
                return
            service.end()
            if TAKEN not in tail(service.log, before) or time.monotonic() > deadline:
                raise StartError(service.silence)

    def dead(self, *, kept: bool) -> str | None:
        """What is to be told of a server that has ended by itself, and of its data if they are kept; or None."""
        for service in self._serving.values():
            name, code = service.server.name, service.process.poll()
            if code is not None:
                how = f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
                if kept:
                    return f"{name} {how}; its log and its data are in {self._home}"
                return f"{name} {how}; its log ends:\n{tail(service.log)}"
        return None

    def _serves(self, service: Service) -> bool:
        server, process = service.server, service.process

        def settled() -> bool:
            if process.poll() is not None:
                return True
            try:
                server.greet(service.port)
            except server.NOT_YET:
                return False
            return True

        return self._parent.wait_for(settled, START_SECONDS) and process.poll() is None

    def _spawn(self, command: list[str], log: Path, death_signal: signal.Signals) -> subprocess.Popen[bytes]:
        with open_log(log) as file:
            return self._account.start(command, cwd=self._home, log=file, held=self._held, death_signal=death_signal)

    def _own_directory(self, path: Path) -> None:
        path.mkdir(mode=0o700)
        self._account.own(path)


@contextlib.contextmanager
def serving(parent: Parent, directory: Path | None) -> Iterator[tuple[Keeper, dict[str, str]]]:
    """Run both servers; the values are their keeper and the environment that leads to them.

    Raises:
        StackError: they cannot be started.
        AbandonedError: the parent is done.
    """
    user = account.for_servers()
    with contextlib.ExitStack() as cleanup:
        scratch = home.make_scratch(user)
        cleanup.callback(shutil.rmtree, scratch)
        programs = binaries.reachable(binaries.find(), user, scratch)
        where = scratch if directory is None else home.settle(directory, user)
        held = _lock(parent, where)
        cleanup.callback(os.close, held)
        keeper = Keeper(parent, user, where, held)
        passwords = home.passwords(where)
        postgres = PostgreSQL(programs, where / "postgres", passwords.postgres)
        valkey = Valkey(programs, where / "valkey", scratch / "valkey.conf", passwords.valkey)
        keeper.prepare(valkey)
        if not postgres.data.exists():
            keeper.create(postgres, scratch)
        postgres_port = cleanup.enter_context(keeper.serving("postgres", postgres))
        valkey_port = cleanup.enter_context(keeper.serving("redis", valkey))
        urls = (postgres.url(postgres_port), valkey.url(valkey_port, 0), valkey.url(valkey_port, 1))
        yield keeper, dict(zip(binaries.URL_VARIABLES, urls, strict=True))


def _lock(parent: Parent, where: Path) -> int:
    taken: list[int] = []

    def take() -> bool:
        descriptor = home.lock(where)
        if descriptor is not None:
            taken.append(descriptor)
        return bool(taken)

    if not parent.wait_for(take, LOCK_WAIT_SECONDS):
        raise StartError(f"{where} is in use by another running stack: stop that one, or choose another directory.")
    return taken[0]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def _answer(**reply: object) -> None:
    # A parent that died does not read.
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Serve one parent until it is done."""
    request = json.loads(sys.stdin.readline())
    parent = Parent(request["parent"])
    directory = request["directory"]
    try:
        with serving(parent, Path(directory) if directory else None) as (keeper, environ):
            _answer(environ=environ)
            while not parent.is_done(PARENT_POLL_SECONDS):
                if problem := keeper.dead(kept=directory is not None):
                    # Said before the other server is stopped: the parent shall not wait for that.
                    _answer(error=problem)
                    break
                if wish := parent.wish():
                    keeper.restart(wish["restart"], immediate=wish["immediate"], empty=wish["empty"])
                    _answer(restarted=wish["number"])
    except AbandonedError:
        pass
    except (StackError, OSError) as error:
        _answer(error=str(error))


if __name__ == "__main__":
    main()
