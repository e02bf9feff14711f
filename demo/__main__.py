"""`python -m demo`: the command line. It ends with 0 when the books are right, 1 when not, 2 when FILE is no trace."""

import signal
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from sqlalchemy.exc import SQLAlchemyError

from db.errors import HarborError
from demo.errors import DemoError, TraceError
from demo.generate import generate
from demo.replay import Demo, Script
from demo.report import Report
from demo.trace import Trace, read
from stack import StackError

EXIT_BAD_FILE, EXIT_INTERRUPTED = 2, 130
GENERATED_ORDERS, GENERATED_DAYS = 1_000, 9
NAMED_ROWS = 10

console = Console()
complaints = Console(stderr=True)


def main(
    orders: Annotated[
        Path | None, typer.Option("--orders", metavar="FILE", help="The trace to replay; without it, one is made up.")
    ] = None,
    json: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the result there, too.", dir_okay=False)
    ] = None,
    seed: Annotated[
        int, typer.Option("--seed", help="Decides the made-up trace, the stock and what each customer does.")
    ] = 1,
    stay: Annotated[
        bool, typer.Option("--stay", help="Keep everything running after the books are checked, until Ctrl-C.")
    ] = False,
) -> None:
    """Replay a shop's orders through the whole of Harbor, with faults, and check the books.

    Real PostgreSQL, Redis, Celery workers, relays, Beats and Flower serve eight shoppers who want more than there is.
    Each order reserves its lines for 3 seconds, all or nothing; then 70 % pay, 10 % give the hold back and 20 % walk
    away. Each payment enqueues a follow-up in its own transaction. On the way Redis is emptied, a worker, a relay and a
    Beat are killed, and PostgreSQL is restarted. At the end nothing may be oversold, every abandoned hold must have
    come back, every follow-up must have been done once, and no tick may be missing.

    FILE is CSV in UTF-8 with a header and the columns order_id, sku, qty, ordered_at and unit_price, one row per order
    line. A negative qty is a return; a row that makes no sense is counted and named. Any shop's export will do.

    The servers are started for the demo and removed after it. When HARBOR_DATABASE_URL, HARBOR_BROKER_URL and
    HARBOR_CACHE_URL are set, those are used instead: in a new database, and with a broker that no other Harbor uses;
    then PostgreSQL is not restarted, and of Redis only the broker's database is emptied.

    Exit code 0: the books are right. 1: they are not, or something did not start. 2: FILE cannot be replayed.
    """
    if json is not None and not json.parent.is_dir():
        raise typer.BadParameter(f"{json.parent} is no directory", param_hint="--json")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    try:
        script = Script(_trace(orders, seed), seed=seed, generated=orders is None, stay=stay)
        report = Demo(script, console).play(lambda result: _tell(result, json))
    except TraceError as error:
        raise _complain(error, EXIT_BAD_FILE) from None
    except SQLAlchemyError as error:
        # Its further lines are the statement and an address to read about it.
        raise _complain(str(error).partition("\n")[0], 1) from None
    except (DemoError, StackError, HarborError, OSError) as error:
        raise _complain(error, 1) from None
    except KeyboardInterrupt:
        raise _complain("stopped", EXIT_INTERRUPTED) from None
    raise typer.Exit(report.exit_code)


def _interrupt(*_: object) -> None:
    # From here on everything is being stopped, each part within a time limit; a second Ctrl-C would leave parts behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _trace(orders: Path | None, seed: int) -> Trace:
    trace = read(orders) if orders else generate(seed, orders=GENERATED_ORDERS, days=GENERATED_DAYS)
    console.print(
        f"[bold]{escape(str(orders or f'A made-up trace, seed {seed}'))}[/]: {len(trace.orders):,} orders"
        f" of {trace.lines:,} lines, {len(trace.prices):,} skus, {trace.lines_skipped:,} rows that are no goods",
        highlight=False,
        soft_wrap=True,
    )
    if trace.malformed:
        console.print(f"{len(trace.malformed):,} rows cannot be used:", highlight=False)
        for row in trace.malformed[:NAMED_ROWS]:
            console.print(
                f"  line {row.line}, {row.field}: {row.reason}", markup=False, highlight=False, soft_wrap=True
            )
        if len(trace.malformed) > NAMED_ROWS:
            console.print(f"  and {len(trace.malformed) - NAMED_ROWS:,} more", highlight=False)
    return trace


def _tell(report: Report, json: Path | None) -> None:
    console.print(report.table())
    if report.problems:
        for problem in report.problems:
            console.print(f"[red]{escape(problem)}[/]", highlight=False)
    else:
        console.print("[green]Nothing was oversold, and every abandoned hold came back.[/]")
        console.print("[green]Every job was done once, and no tick is missing.[/]")
    if json is not None:
        report.write(json)


def _complain(problem: object, exit_code: int) -> typer.Exit:
    complaints.print(f"demo: {problem}", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(exit_code)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False, rich_markup_mode=None)
    app.command()(main)
    app(prog_name="python -m demo")
