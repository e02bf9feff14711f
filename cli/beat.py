"""`harbor beat`: the process that starts what is due."""

from typing import Annotated

import typer

from cli.celery import become_celery

app = typer.Typer()


@app.command(epilog="Example: harbor beat")
def beat(
    *,
    celery_options: Annotated[list[str] | None, typer.Argument(help="Options for Celery's beat, after `--`.")] = None,
) -> None:
    """Run Beat until it is stopped. Run two or more: each tick runs once, and each Beat may die at any moment.

    Schedules and ticks are kept in the database: `harbor schedule list`.
    """
    become_celery("beat", *(celery_options or []))
