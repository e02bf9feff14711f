"""`harbor beat`: the process that starts what is due."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cli.celery import become_celery

app = typer.Typer()


@app.command(epilog="Example: harbor beat --schedule /var/lib/harbor/beat-schedule")
def beat(
    *,
    schedule: Annotated[
        Path | None,
        typer.Option(help="Where it remembers what ran last; else in .harbor, or in prod a temporary directory."),
    ] = None,
    celery_options: Annotated[list[str] | None, typer.Argument(help="Options for Celery's beat, after `--`.")] = None,
) -> None:
    """Run Beat until it is stopped. Run one: a second one starts everything twice."""
    become_celery("beat", f"--schedule={schedule or _default_schedule()}", *(celery_options or []))


def _default_schedule() -> Path:
    from db.settings import STACK_ENV, settings

    if settings().env == "prod":
        # The root file system may be read-only. Beat unpickles this file, so it is never one that others could have
        # written; what is lost with it is a tick of a schedule whose period is longer than Beat ran.
        return Path(tempfile.mkdtemp(prefix="harbor-beat-")) / "schedule"
    STACK_ENV.parent.mkdir(exist_ok=True)
    return STACK_ENV.with_name("beat-schedule")
