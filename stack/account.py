"""The account that the servers run as.

Promise: never root. PostgreSQL refuses root, so a stack that root starts runs its servers as `nobody`; any other user's
stack runs as that user. No account is ever created.
"""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from stack.errors import StartError

UNPRIVILEGED = "nobody"
PR_SET_PDEATHSIG = 1  # From linux/prctl.h.
# "C" keeps the servers' messages in English, so that a taken port can be recognised.
ENVIRONMENT = {"LC_ALL": "C", "PATH": os.defpath}


@dataclass(frozen=True)
class Account:
    """A user to start programs as."""

    name: str
    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        """Whether programs must change user to run as this account."""
        return self.uid != os.geteuid()

    def own(self, path: Path) -> None:
        """Make the account the owner of one file or directory."""
        if self.is_other:
            os.chown(path, self.uid, self.gid)

    def reaches(self, directory: Path) -> bool:
        """Whether the account can enter a directory: asked of the system, since modes alone do not tell."""
        try:
            self.run(["/bin/sh", "-c", 'cd -- "$0"', str(directory)])
        except subprocess.CalledProcessError:
            return False
        return True

    def run(self, command: Sequence[str]) -> None:
        """Run a short command to its end.

        Raises:
            OSError: it cannot be started.
            CalledProcessError: it failed.
        """
        subprocess.run(
            command,
            check=True,
            cwd="/",
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._identity(),
        )

    def start(
        self, command: Sequence[str], *, cwd: Path, log: BinaryIO, held: int, death_signal: signal.Signals
    ) -> subprocess.Popen[bytes]:
        """Start a long-running command, with both outputs into `log`.

        Args:
            command: the program and its arguments.
            cwd: a directory that the account can enter.
            log: an open file.
            held: a descriptor that stays open in the command, so that a lock on it lasts as long as the command.
            death_signal: what the command gets, on Linux, when the process that starts it dies.

        Raises:
            OSError: it cannot be started.
        """
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(held,),
            preexec_fn=_die_with_starter(death_signal),  # noqa: PLW1509 - the keeper that calls this has one thread
            umask=0o077,
            **self._identity(),
        )

    def _identity(self) -> dict[str, Any]:
        return {"user": self.uid, "group": self.gid, "extra_groups": []} if self.is_other else {}


def for_servers() -> Account:
    """The account that servers started by this process run as.

    Raises:
        StartError: this is root, and the system has no unprivileged account.
    """
    uid = os.geteuid()
    if uid != 0:
        return Account(name=str(uid), uid=uid, gid=os.getegid())
    try:
        entry = pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        raise StartError(
            f"PostgreSQL refuses to run as root, and this system has no user {UNPRIVILEGED}: start as another user."
        ) from None
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


def _die_with_starter(death_signal: signal.Signals) -> Callable[[], None] | None:
    """What a child runs before its program, so that a SIGKILL of its starter leaves no server behind (Linux only)."""
    if sys.platform != "linux":
        return None
    # Loaded before the fork: a forked child should not load libraries.
    prctl = ctypes.CDLL(None).prctl
    starter = os.getpid()

    def ask() -> None:
        # Asked after the change of user, which clears it; subprocess calls this after that change.
        prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
        if os.getppid() != starter:
            os._exit(1)

    return ask
