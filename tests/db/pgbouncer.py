"""A PgBouncer before the tests' PostgreSQL, which lends few connections to many clients, each for one transaction.

It refuses to run as root; a test that is root lets it be `nobody`, in a directory that `nobody` owns.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.processes import process, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import URL

_START_SECONDS = 20
_ACCOUNT = "nobody"
_PREPARES_SINCE = (1, 21)  # Older ones do not know the setting, and refuse to start with it.


@contextmanager
def pgbouncer(behind: URL, *, connections: int, **settings: str) -> Iterator[URL]:
    """Yield the URL of the same database through a PgBouncer; skips the test where there is none.

    Args:
        behind: the URL of PostgreSQL itself.
        connections: how many it makes to PostgreSQL, whatever the number of clients.
        settings: more of its settings, by their names.
    """
    program = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed")
    port = _free_port()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        ini = _write(directory / "pgbouncer.ini", _ini(behind, port, _told(program, connections) | settings, directory))
        _write(directory / "users", f'"{behind.username}" "{_quoted(behind.password)}"\n')
        root = os.geteuid() == 0
        if root:
            shutil.chown(directory, _ACCOUNT)
        command = [program, *(["-u", _ACCOUNT] if root else []), str(ini)]
        with process(command, os.environ, directory / "log") as running:
            wait_until(lambda: "process up" in running.text() or not running.runs(), _START_SECONDS, running)
            assert running.runs(), running.text()
            yield behind.set(host="127.0.0.1", port=port)


def _told(program: str, connections: int) -> dict[str, str]:
    told = {"pool_mode": "transaction", "default_pool_size": str(connections), "max_client_conn": "100"}
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    version = re.search(r"(\d+)\.(\d+)", answer)
    assert version is not None, answer
    if tuple(map(int, version.groups())) >= _PREPARES_SINCE:
        # A server of another version must break in the same way: it does not follow what clients prepare.
        told["max_prepared_statements"] = "0"
    return told


def _ini(behind: URL, port: int, settings: dict[str, str], directory: Path) -> str:
    always = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "scram-sha-256",
        "auth_file": str(directory / "users"),
    }
    lines = [f"{name} = {value}" for name, value in (always | settings).items()]
    return "\n".join(["[databases]", f"* = host={behind.host} port={behind.port or 5432}", "[pgbouncer]", *lines, ""])


def _write(path: Path, content: str) -> Path:
    path.write_text(content)
    if os.geteuid() == 0:
        shutil.chown(path, _ACCOUNT)
    path.chmod(0o600)
    return path


def _quoted(password: object) -> str:
    return str(password or "").replace('"', '""')


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
