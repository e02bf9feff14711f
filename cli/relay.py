"""`harbor relay`: takes due jobs from the ledger to the broker."""

import typer

app = typer.Typer()


@app.command(epilog="Example: harbor relay")
def relay() -> None:
    """Run a relay: it takes due jobs from the ledger to the broker.

    It also sends again what got lost there. Run two or more; each may die at
    any moment. SIGTERM and Ctrl-C end it after the batch at hand.
    """
    from worker.relay import main

    main()
