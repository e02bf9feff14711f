"""`harbor …`: one file per noun, tables for people, `--json` for scripts, and one line when something cannot be done.

Exit codes: 0 it was done, 1 it could not be done, 2 it was asked for in a way that no command understands, 130 it was
interrupted. Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import re
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli import beat, db, flower, inventory, jobs, queues, relay, reservations, schedule, up, worker
from cli.errors import explain


class _Commands(TyperGroup):
    """Says what is wrong with an argument without the phrases of the library that checks it."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            said = error.message.removeprefix("Value error, ")
            error.message = re.sub(r"^Input should be ([^,]+).*", r"must be \1.", said)
            raise


def _show_version(asked: bool) -> None:
    if asked:
        print(f"harbor {db.version()}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    # Its panels give each flag a type, as if a value had to follow it.
    rich_markup_mode=None,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: harbor up",
)


@app.callback()
def harbor(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Harbor runs the background jobs of an inventory service: holds that never oversell and always expire."""


app.add_typer(up.app)
app.add_typer(worker.app)
app.add_typer(beat.app)
app.add_typer(relay.app)
app.add_typer(flower.app)
app.add_typer(db.app, name="db")
app.add_typer(jobs.app, name="jobs")
app.add_typer(queues.app, name="queues")
app.add_typer(schedule.app, name="schedule")
app.add_typer(reservations.app, name="reservations")
app.add_typer(inventory.app, name="inventory")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit; `arguments` are those of the process unless given.

    Raises:
        SystemExit: always, with the exit code.
    """
    try:
        app(arguments, prog_name="harbor")
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        sys.stderr.write(f"harbor: {message}\n")
        raise SystemExit(1) from None
