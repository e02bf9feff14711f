"""`harbor worker`: one process that runs tasks, of one pool or of all."""

from typing import Annotated, Literal, get_args

import typer

from cli.celery import become_celery

app = typer.Typer()

# The same as db.settings.POOLS, which would have to load the settings before `--help` could answer.
Pool = Literal["default", "expiry", "bulk"]


@app.command(epilog="Example: harbor worker --pool expiry --concurrency 2 -- --max-tasks-per-child 100")
def worker(
    *,
    pool: Annotated[Pool | None, typer.Option(help="Take work from this queue only; else from all.")] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, help="Tasks at a time; else one per processor.")] = None,
    celery_options: Annotated[list[str] | None, typer.Argument(help="Options for Celery's worker, after `--`.")] = None,
) -> None:
    """Run a worker until it is stopped.

    SIGTERM stops it softly: running tasks have 25 seconds to end, then they
    go back to the queue. Give it 45 seconds before it is killed.
    """
    queues = get_args(Pool) if pool is None else (pool,)
    become_celery(
        "worker",
        f"--queues={','.join(queues)}",
        f"--hostname={queues[0]}@%h",
        # Every worker would receive every event of every other one, and use none of it.
        "--without-gossip",
        "--without-mingle",
        *([] if concurrency is None else [f"--concurrency={concurrency}"]),
        *(celery_options or []),
        HARBOR_WORKER_POOL=queues[0],
        # As it comes, Celery waits for running tasks without end, until the supervisor loses patience and kills it.
        REMAP_SIGTERM="SIGQUIT",
    )
