"""`harbor relay`: takes due jobs from the ledger to the broker."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(
    short_help="Run a relay, which takes due jobs to the broker.",
    epilog="Example: harbor relay --alive /tmp/relay-alive",
)
def relay(
    *,
    alive: Annotated[
        Path | None, typer.Option(help="Touch this file after each round that worked, for a health check.")
    ] = None,
) -> None:
    """Run a relay: it takes due jobs from the ledger to the broker.

    It also sends again what got lost there. Run two or more; each may die at
    any moment. SIGTERM and Ctrl-C end it after the batch at hand.
    """
    from worker.relay import main

    main(alive)
