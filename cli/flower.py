"""`harbor flower`: the page that shows workers and tasks, behind a password and on loopback unless told otherwise."""

import os
import secrets
import socket
from contextlib import closing
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.celery import become_celery
from db.errors import SettingsError

if TYPE_CHECKING:
    from db.settings import Settings

app = typer.Typer()


@app.command(epilog="Example: HARBOR_FLOWER_PORT=5556 harbor flower --read-write")
def flower(
    *,
    read_write: Annotated[bool, typer.Option("--read-write", help="Let it also stop workers and start tasks.")] = False,
    celery_options: Annotated[list[str] | None, typer.Argument(help="Options for Flower, after `--`.")] = None,
) -> None:
    """Run Flower until it is stopped, read-only.

    Its user, password, address and port are HARBOR_FLOWER_USER, _PASSWORD,
    _ADDRESS and _PORT. Without a password, one is made up, printed and kept
    in .harbor; with HARBOR_ENV=prod, Flower then does not start.
    """
    from db.settings import settings

    access = Access.of(settings())
    password = f" with password {access.password} (kept in {access.kept_in})" if access.kept_in else ""
    print(f"Flower is at {access.url} for user {access.user}{password}")
    writes = {"HARBOR_FLOWER_READ_ONLY": "false"} if read_write else {}
    become_celery("flower", f"--conf={_configuration()}", *(celery_options or []), **access.environ, **writes)


@dataclass(frozen=True, slots=True)
class Access:
    """Where Flower is and who may see it; a password that was made up is kept in a file."""

    address: str
    port: int
    user: str
    password: str
    kept_in: Path | None

    @classmethod
    def of(cls, told: "Settings") -> "Access":
        """Return what the settings say, with a password and a port made up where they leave it open.

        Raises:
            SettingsError: there is no password in prod, or the port is taken.
        """
        password = told.flower_password.get_secret_value() if told.flower_password else ""
        if not password and told.env == "prod":
            raise SettingsError(
                variable="HARBOR_FLOWER_PASSWORD", problem="is not set, and in prod Flower does not start without it"
            )
        kept_in = None if password else _password_file()
        return cls(
            address=told.flower_address,
            port=_free_port(told.flower_address, told.flower_port),
            user=told.flower_user,
            password=kept_in.read_text("utf-8", errors="replace").strip() if kept_in else password,
            kept_in=kept_in,
        )

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.address}:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """What tells another process the same."""
        return {"HARBOR_FLOWER_PASSWORD": self.password, "HARBOR_FLOWER_PORT": str(self.port)}


def _password_file() -> Path:
    """Return the file of this directory's password, made up the first time and for its owner alone."""
    from db.settings import STACK_ENV

    path = STACK_ENV.with_name("flower_password")
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or not path.stat().st_size:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secrets.token_urlsafe(24)}\n")
    return path


def _free_port(address: str, port: int) -> int:
    """Return the port, or for 0 one that is free. Found taken here, it is an answer; in Flower, a traceback."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with closing(socket.create_server((address, port), family=family)) as probe:
            free: int = probe.getsockname()[1]
    except OSError as error:
        reason = error.strerror or "it cannot be used"
        raise SettingsError(
            variable="HARBOR_FLOWER_PORT", problem=f"is {port}, and {address} answers: {reason}; 0 takes a free one"
        ) from None
    return free


def _configuration() -> str:
    spec = find_spec("worker.flower")
    assert spec is not None
    assert spec.origin is not None
    return spec.origin
