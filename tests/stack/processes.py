"""What the tests need to see of the servers: their processes, where they live, and the script that holds a stack."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import psycopg

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 30

Answer = TypeVar("Answer")

HOLD = """
import json, os, signal, stack
with stack.running() as held:
    if {fork} and os.fork() == 0:
        signal.pause()
    print(json.dumps(held.environ), flush=True)
    signal.pause()
"""


@dataclass(frozen=True)
class Holder:
    """A process that stands in `with stack.running()`."""

    process: subprocess.Popen[str]
    home: Path


def database(environ: dict[str, str]) -> str:
    """The database URL as psycopg alone takes it."""
    return environ["HARBOR_DATABASE_URL"].replace("+psycopg", "")


def home_of(environ: dict[str, str]) -> Path:
    """The directory that holds the data of the servers."""
    with psycopg.connect(database(environ)) as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return Path(row[0]).parent


def servers_in(home: Path) -> list[psutil.Process]:
    """The server processes of a stack: each works inside its data directory, whatever its title says."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(home):
                found.append(process)
        except (psutil.Error, FileNotFoundError):
            continue
    return found


def asked_of_servers(home: Path, question: Callable[[psutil.Process], Answer]) -> list[Answer]:
    """What each server process of a stack answers, but for sessions of PostgreSQL that end meanwhile."""
    answers = []
    for server in servers_in(home):
        with suppress(psutil.NoSuchProcess):
            answers.append(question(server))
    return answers


def processes_naming(text: str) -> list[int]:
    """The processes whose command line contains a text."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if text in " ".join(p.info["cmdline"] or [])]


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true before the deadline."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if condition():
            return True
        os.sched_yield()
    return condition()


@contextmanager
def holder(*, fork: bool = False) -> Iterator[Holder]:
    """A subprocess that holds a stack; whatever it leaves is removed at the end."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(fork=fork)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        home = home_of(json.loads(process.stdout.readline()))
        family = psutil.Process(process.pid).children(recursive=True)
        try:
            yield Holder(process, home)
        finally:
            process.kill()
            for relative in family:
                if relative.is_running():
                    relative.kill()
            shutil.rmtree(home, ignore_errors=True)


def keeper_with(changes: str, directory: Path | None = None) -> dict[str, dict[str, str]]:
    """What a keeper answers when some of its module's names are changed; it is dismissed at once."""
    script = f"import stack.keeper as keeper\n{changes}\nkeeper.main()"
    request = json.dumps({"parent": os.getpid(), "directory": str(directory) if directory else None})
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(request + "\n")
        process.stdin.flush()
        answer: dict[str, dict[str, str]] = json.loads(process.stdout.readline())
        process.stdin.close()
    return answer
