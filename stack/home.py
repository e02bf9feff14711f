"""Where a stack's data lives, who may open it, and its passwords.

Promise: one stack per directory (a lock that its servers hold too, so not even a killed keeper lets a second one in);
a kept directory opens with the same passwords every time; secrets are readable by their owner alone.
"""

import fcntl
import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stack.account import Account
from stack.errors import StartError

ENTER_ONLY = 0o711  # The servers' account passes through to its own directories and lists nothing.


@dataclass(frozen=True)
class Passwords:
    """The passwords of both servers."""

    postgres: str
    valkey: str


def make_scratch(account: Account) -> Path:
    """A new temporary directory that the account can enter.

    Raises:
        StartError: there is none.
    """
    for parent in (None, "/tmp", "/var/tmp"):  # noqa: S108 - mkdtemp makes an unguessable, closed directory in it
        scratch = Path(tempfile.mkdtemp(prefix="harbor-stack-", dir=parent)).resolve()
        scratch.chmod(ENTER_ONLY)
        if account.reaches(scratch):
            return scratch
        scratch.rmdir()
    raise StartError(f"user {account.name} can enter no temporary directory: set TMPDIR to one that others may enter.")


def settle(directory: Path, account: Account) -> Path:
    """The directory for kept data: `directory`, or where its link `data` leads when the account cannot enter it.

    PostgreSQL refuses root, and another account cannot enter a checkout under a closed /root. The data then live in
    a directory of their own in /var/tmp, and a link in the wanted directory finds them again.
    """
    directory.mkdir(parents=True, exist_ok=True)
    link = directory / "data"
    if link.is_dir():
        return link.resolve()
    if account.reaches(directory):
        return directory
    elsewhere = Path(tempfile.mkdtemp(prefix="harbor-", dir="/var/tmp"))
    elsewhere.chmod(ENTER_ONLY)
    # A link whose target was removed lost its data; the stack starts anew.
    link.unlink(missing_ok=True)
    link.symlink_to(elsewhere)
    return elsewhere


def lock(home: Path) -> int | None:
    """Take a directory for one stack; the descriptor that holds it, or None while another stack has it."""
    descriptor = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def passwords(home: Path) -> Passwords:
    """The passwords of the directory's servers, made up the first time.

    Raises:
        StartError: there are data, and the passwords that open them are gone.
    """
    path = home / "passwords.json"
    if path.exists():
        return Passwords(**json.loads(path.read_text()))
    if (home / "postgres").exists():
        raise StartError(
            f"{path} is missing, and {home / 'postgres'} opens with no other: remove {home} to start anew."
        )
    made = Passwords(postgres=secrets.token_urlsafe(24), valkey=secrets.token_urlsafe(24))
    # Renamed into place: a half-written file would lock the owner out.
    draft = path.with_suffix(".new")
    private_file(draft, json.dumps({"postgres": made.postgres, "valkey": made.valkey}))
    draft.replace(path)
    return made


def private_file(path: Path, text: str = "") -> None:
    """Write a file that its owner alone can read, from its first byte on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
