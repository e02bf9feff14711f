"""`harbor worker` and `harbor beat` become Celery's own processes, and tell Celery the right things."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, get_args

import psutil
import pytest

from cli.worker import Pool
from db.settings import POOLS
from tests.processes import ROOT, python, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

START_SECONDS = 20


@pytest.fixture
def told(servers: dict[str, str]) -> dict[str, str]:
    """An environment that finds Harbor from any directory."""
    return {**os.environ, **servers, "PYTHONPATH": str(ROOT)}


@contextmanager
def celery(arguments: str, environ: dict[str, str], directory: Path) -> Iterator[psutil.Process]:
    """The process of a command, once it has become Celery."""
    command = python("-m", "cli", *arguments.split())
    with (
        (directory / "log").open("wb") as log,
        subprocess.Popen(command, cwd=directory, env=environ, stdout=log, stderr=log) as popen,
    ):
        started = psutil.Process(popen.pid)
        try:
            wait_until(lambda: "celery" in started.cmdline(), START_SECONDS)
            yield started
        finally:
            popen.kill()


@pytest.mark.parametrize("pool", POOLS)
def test_a_worker_serves_the_queue_of_its_pool(told: dict[str, str], tmp_path: Path, pool: str) -> None:
    with celery(f"worker --pool {pool} --concurrency 3 -- --max-tasks-per-child 7", told, tmp_path) as worker:
        command, environ = worker.cmdline(), worker.environ()

    assert {f"--queues={pool}", f"--hostname={pool}@%h", "--concurrency=3", "--without-gossip"} <= set(command)
    assert command[-2:] == ["--max-tasks-per-child", "7"]
    assert environ["HARBOR_WORKER_POOL"] == pool
    assert environ["REMAP_SIGTERM"] == "SIGQUIT"


def test_a_worker_of_no_pool_serves_all_queues(told: dict[str, str], tmp_path: Path) -> None:
    with celery("worker", told, tmp_path) as worker:
        command, environ = worker.cmdline(), worker.environ()

    assert f"--queues={','.join(POOLS)}" in command
    assert environ["HARBOR_WORKER_POOL"] == "default"


def test_every_pool_can_be_named() -> None:
    assert get_args(Pool) == POOLS
