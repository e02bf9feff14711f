"""`harbor up`: everything on one machine, in one terminal, with one log."""

import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from cli.children import Program, Say, heeded, keep
from cli.db import upgrade
from cli.flower import Access
from cli.hints import typed
from cli.output import printable
from db.errors import HarborError

app = typer.Typer()

_COLOURS = {
    "expiry": "green",
    "default": "cyan",
    "bulk": "blue",
    "flower": "yellow",
    "relay-1": "bright_cyan",
    "relay-2": "bright_cyan",
    "beat-1": "magenta",
    "beat-2": "magenta",
}


class AlreadyUp(HarborError):
    """`harbor up` runs in {directory} already: press Ctrl-C where it runs, or go to another directory."""


class NoStack(HarborError):
    """No servers of its own are part of this installation: set {variables}."""


@app.command(short_help="Run everything on this machine until Ctrl-C.", epilog="Example: harbor up --no-flower")
def up(
    *,
    concurrency: Annotated[int, typer.Option(min=1, help="Tasks at a time in each worker pool.")] = 1,
    flower: Annotated[bool, typer.Option("--flower/--no-flower", help="Run Flower, too.")] = True,
) -> None:
    """Run everything on this machine until Ctrl-C: servers, migrations, three worker pools, relays, Beats and Flower.

    PostgreSQL and Valkey are started, with their data in .harbor, unless
    HARBOR_DATABASE_URL, HARBOR_BROKER_URL and HARBOR_CACHE_URL lead to servers
    that run. What dies of the others is started again.
    """
    from db.settings import settings

    # Until the children run, whatever asks to stop unwinds what has been started.
    for number in heeded():
        signal.signal(number, signal.default_int_handler)
    try:
        with _alone() as directory, _servers(directory) as (urls, check), _told_to_others(urls):
            access = Access.of(settings()) if flower else None
            upgrade("head")
            _welcome(access)
            keep(_programs(concurrency, access), _log(), check)
    except KeyboardInterrupt:
        pass
    print("Harbor has stopped.")


def urls_are_told() -> bool:
    """Return whether the environment names servers, and not a running `harbor up`."""
    from db.settings import DIRECT_URL, URLS

    return any(os.environ.get(name) or os.environ.get(f"{name}_FILE") for name in (*URLS, DIRECT_URL))


@contextmanager
def _alone() -> Iterator[Path]:
    """Yield the directory of what this checkout keeps, locked for as long as the block lasts.

    Raises:
        AlreadyUp: another process is in this block.
    """
    from db.settings import STACK_ENV

    directory = STACK_ENV.parent
    directory.mkdir(exist_ok=True)
    with (directory / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyUp(directory=Path.cwd()) from None
        yield directory


@contextmanager
def _servers(directory: Path) -> Iterator[tuple[dict[str, str], Callable[[], None]]]:
    """Yield the three URLs of servers that run, those that the environment names or else a stack's own, and a check.

    The check raises what there is to say when a server of the stack has died.
    """
    from db.settings import URLS, settings

    if urls_are_told():
        told = settings()
        urls = (told.database_url, told.broker_url, told.cache_url)
        yield dict(zip(URLS, (url.get_secret_value() for url in urls), strict=True)), lambda: None
        return
    try:
        import stack
    except ModuleNotFoundError:
        raise NoStack(variables=", ".join(URLS)) from None
    print("PostgreSQL and Valkey are starting.", flush=True)
    with stack.running(directory / "stack") as servers:
        yield servers.environ, servers.check


@contextmanager
def _told_to_others(urls: dict[str, str]) -> Iterator[None]:
    """Let this process, its children and other processes of this checkout find the servers during the block."""
    from db.settings import STACK_ENV, settings

    os.environ.update(urls)
    settings.cache_clear()
    # A `$` or a quote would mean something in this file. In a URL, %xx says the same.
    lines = [f"{name}='{quote(url, safe=':/?#[]@!&()*+,;=%')}'\n" for name, url in urls.items()]
    STACK_ENV.unlink(missing_ok=True)
    with os.fdopen(os.open(STACK_ENV, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.writelines(lines)
    try:
        yield
    finally:
        STACK_ENV.unlink()


def _welcome(access: Access | None) -> None:
    from db.settings import STACK_ENV

    print("Harbor is up; Ctrl-C stops it.")
    commands = typed("`harbor …`, `alembic …` and `celery -A worker …`")
    print(f"  {STACK_ENV} leads {commands} in this directory to its servers.")
    if access is not None:
        password = (
            f"{access.password} (kept in {access.kept_in})" if access.kept_in else "as HARBOR_FLOWER_PASSWORD says"
        )
        print(f"  Flower is at {access.url}: user {access.user}, password {password}")
    print(flush=True)


def _programs(concurrency: int, access: Access | None) -> list[Program]:
    programs = [
        # On SIGTERM even an idle worker takes 25 s, which is for rolling updates and not for Ctrl-C.
        Program(pool, ["worker", "--pool", pool, "--concurrency", str(concurrency)], signal.SIGINT)
        for pool in ("expiry", "default", "bulk")
    ]
    # Two of each, as in production: whichever is killed, the other goes on.
    programs += [Program(f"relay-{number}", ["relay"], signal.SIGTERM) for number in (1, 2)]
    programs += [Program(f"beat-{number}", ["beat"], signal.SIGTERM) for number in (1, 2)]
    if access is not None:
        programs.append(Program("flower", ["flower"], signal.SIGTERM, access.environ))
    return programs


def _log() -> Say:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)

    def say(name: str, line: str) -> None:
        console.print(Text.assemble((f"{name:<8}", _COLOURS[name]), f"| {printable(line)}"))

    return say
