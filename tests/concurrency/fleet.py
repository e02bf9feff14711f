"""Everything that runs jobs, as an operator starts it: workers, relays, Beats, which can be killed and replaced."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil
from sqlalchemy.exc import SQLAlchemyError

from tests.db.sql import rows
from tests.processes import Process, process, program, python, wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import ExitStack
    from pathlib import Path

_READY_SECONDS = 60
_TAIL_CHARACTERS = 3_000
_BUSY = """
SELECT application_name FROM pg_stat_activity
 WHERE datname = current_database() AND application_name LIKE 'chaos %' AND state <> 'idle'"""
_STARTED = {"worker": "ready.", "relay": "relay.started", "beat": "beat.started"}

# Celery's word when a child is killed that its parent has just started; it leaves the rest to its supervisor.
_KILLED_AT_START = "Could not start worker processes"


@dataclass
class Member:
    """A place in the fleet, and the process that has it now."""

    name: str
    process: Process

    @property
    def role(self) -> str:
        return self.name.partition("-")[0]

    def send(self, number: int) -> None:
        """Send a signal to the process and everything that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.popen.pid, number)

    def children(self) -> list[int]:
        """The pids of the processes in which a worker's tasks run."""
        try:
            return [child.pid for child in psutil.Process(self.process.popen.pid).children()]
        except psutil.NoSuchProcess:
            return []


class Fleet:
    """Members that run until `entered` is left."""

    def __init__(self, environ: Mapping[str, str], logs: Path, entered: ExitStack) -> None:
        self._environ = {**os.environ, **environ}
        self._logs = logs
        self._entered = entered
        self._started = 0
        self.members: list[Member] = []
        self.ended: list[str] = []

    def man(self, **roles: int) -> None:
        """Start so many of each role and wait until they do their work."""
        names = [f"{role}-{number + 1}" for role, count in roles.items() for number in range(count)]
        manned = [Member(name, self._start(name)) for name in names]
        self.members += manned
        for each in manned:
            wait_until(lambda each=each: _STARTED[each.role] in each.process.text(), _READY_SECONDS, each.process)  # type: ignore[misc]

    def of(self, role: str) -> list[Member]:
        """The members of a role."""
        return [member for member in self.members if member.role == role]

    def children(self) -> list[int]:
        """The pids of all processes in which tasks run."""
        return [pid for member in self.of("worker") for pid in member.children()]

    def busy_children(self) -> list[int]:
        """Those that are in the middle of the transaction of a task of tests.concurrency.chaos_tasks."""
        children = set(self.children())
        with suppress(SQLAlchemyError):  # The database may be away.
            return sorted({int(name.split()[1]) for (name,) in rows(_BUSY)} & children)
        return []

    def replace(self, member: Member) -> None:
        """Start another process in a member's place, whatever the one before does."""
        member.process = self._start(member.name)

    def kill(self, member: Member) -> None:
        """End a member as a machine that loses its power does, and start another one."""
        member.process.kill_group()
        self.replace(member)

    def look_after(self) -> None:
        """Replace who has ended by itself, as a supervisor does, and write that down: nothing should do that."""
        for member in self.members:
            if not member.process.runs():
                told = member.process.text()
                if _KILLED_AT_START not in told:
                    self.ended.append(f"{member.name} ended by itself:\n{told[-_TAIL_CHARACTERS:]}")
                self.replace(member)

    def _start(self, name: str) -> Process:
        self._started += 1
        role = name.partition("-")[0]
        log = self._logs / f"{name}-{self._started}.log"
        return self._entered.enter_context(process(self._command(role), self._environ, log))

    def _command(self, role: str) -> list[str]:
        if role != "worker":
            return [program("harbor"), role]
        # What `harbor worker` makes of itself, with the tasks of this test.
        celery = python("-m", "celery", "--quiet", "--app", "tests.concurrency.chaos_tasks", "worker")
        own = f"--hostname=chaos-{self._started}@%h"
        return [*celery, "--queues=default,expiry,bulk", own, "--without-gossip", "--without-mingle", "-c", "2"]
