"""Who is at the command line: `--actor`, for the record of what people did."""

import os
import pwd
from typing import Annotated

import typer


def login() -> str:
    """Return the name under which this process runs, and behind `sudo` the name of who called it."""
    uid = os.geteuid()
    if uid == 0 and (caller := os.environ.get("SUDO_USER")):
        return caller
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # A container may run under a number that has no name.
        return f"uid {uid}"


Actor = Annotated[
    str,
    typer.Option(
        envvar="HARBOR_ACTOR",
        show_envvar=False,
        default_factory=login,
        show_default=False,
        help="Who does it, for the record; else HARBOR_ACTOR, or the login name.",
    ),
]
