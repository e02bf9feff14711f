"""`python -m demo` as a person runs it: real servers, real workers, faults, and an exit code that means something."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from demo.report import BROKEN
from stack.binaries import URL_VARIABLES
from tests.stack.processes import database, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
HEADER = "order_id,sku,qty,ordered_at,unit_price"
PROMISED_KEYS = {
    *("orders", "lines", "lines_skipped", "holds", "sold_out", "confirmed", "released", "expired"),
    *("oversold_units", "unreturned_units", "unreconciled_variants", "deadlocks"),
    *("jobs_committed", "jobs_done", "jobs_lost", "jobs_twice", "ticks_due", "ticks_missed", "ticks_twice"),
    *("job_latency_p50_ms", "job_latency_p99_ms"),
    *("expiry_lag_p50_s", "expiry_lag_p99_s", "faults", "seconds"),
}
NEWS = (
    "Redis was emptied by FLUSHALL",
    "worker default-1 was killed with SIGKILL",
    "worker default-1 is back after",
    "PostgreSQL restarts",
    "PostgreSQL is back after",
    "relay 1 was killed with SIGKILL",
    "relay 1 is back after",
    "Beat 1 was killed with SIGKILL",
    "Beat 1 is back after",
)


@contextmanager
def demo(environ: dict[str, str], *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that runs; killed at the end when it still does."""
    with subprocess.Popen(
        [sys.executable, "-m", "demo", *map(str, arguments)],
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def without_servers() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in URL_VARIABLES}


def small_trace(path: Path, orders: int = 12) -> Path:
    """Orders for two of three mugs each; then one too large for a hold, one whose sku nobody else wants and that has no
    stock therefore, a return, postage and a row that is bad.
    """
    rows = [
        f"{number},HBR-MUG-0{place},2,2026-01-05T09:{number:02}Z,9.00"
        for number in range(orders)
        for place in (number % 3, (number + 1) % 3)
    ]
    rows += [f"giant,HBR-{number:04},1,2026-01-05T09:10Z,1.00" for number in range(1_001)]
    rows += ["alone,HBR-CUP-01,1,2026-01-05T09:10Z,1.00"]
    rows += ["C1,HBR-MUG-00,-3,2026-01-05T09:12Z,9.00", "1,POST,1,2026-01-05T09:01Z,4.00", "1,HBR-MUG-00,0,?,9.00"]
    path.write_text("\n".join([HEADER, *rows]), encoding="utf-8")
    return path


def databases(environ: dict[str, str]) -> set[str]:
    with psycopg.connect(database(environ)) as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'harbor_demo_%'").fetchall()
    return {name for (name,) in found}


def drop(environ: dict[str, str], names: set[str]) -> None:
    with psycopg.connect(database(environ), autocommit=True) as connection:
        for name in names:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


def has_ended(process: psutil.Process) -> bool:
    try:
        # Whose parent was killed stays a zombie where nobody adopts it, as in a container without an init.
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_trace_is_replayed_with_faults_and_every_unit_job_and_tick_is_accounted_for(tmp_path: Path) -> None:
    trace, answer = small_trace(tmp_path / "orders.csv"), tmp_path / "answer.json"

    # With this seed some of the first orders confirm, some release and some walk away.
    with demo(without_servers(), "--orders", trace, "--json", answer, "--seed", "3") as process:
        told, complaints = process.communicate(timeout=150)

    assert process.returncode == 0, told + complaints
    result: dict[str, Any] = json.loads(answer.read_text())
    assert result.keys() >= PROMISED_KEYS
    assert {key: result[key] for key in BROKEN} == dict.fromkeys(BROKEN, 0)
    assert (result["orders"], result["refused"], result["returns"], result["faults"]) == (14, 1, 1, 5)
    assert result["jobs_done"] == result["jobs_committed"] == result["confirmed"]
    assert result["ticks_due"] > 10
    assert (result["lines"], result["lines_skipped"], result["malformed"]) == (1_027, 1, 1)
    assert result["orders"] == result["holds"] + result["sold_out"] + result["refused"]
    assert result["holds"] == result["confirmed"] + result["released"] + result["expired"]
    assert min(result[key] for key in ("sold_out", "confirmed", "expired")) > 0
    assert "line 1030, qty: qty is 0" in told
    places = [told.index(news) for news in (*NEWS, "checking the books")]
    assert places == sorted(places)


def test_a_server_that_dies_in_the_middle_is_named(tmp_path: Path) -> None:
    with demo(without_servers(), "--orders", small_trace(tmp_path / "orders.csv")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert any("orders 1" in line for line in process.stdout)
        (postgres,) = [
            server
            for keeper in psutil.Process(process.pid).children()
            for server in keeper.children()
            if server.name() == "postgres"
        ]
        postgres.kill()
        complaints = process.stderr.read()
        process.wait(timeout=30)

    assert process.returncode == 1
    assert complaints.startswith("demo: postgres was ended by SIGKILL; its log ends:")


def test_a_file_that_is_no_trace_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("a,b,c\n1,2,3\n")

    with demo(without_servers(), "--orders", tmp_path / "orders.csv") as process:
        told, complaints = process.communicate(timeout=20)

    assert process.returncode == 2
    assert told == ""
    assert complaints.count("\n") == 1
    assert "has no column order_id, sku, qty, ordered_at, unit_price" in complaints


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_end_in_the_middle_leaves_no_process_behind(
    servers: dict[str, str], tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    before = databases(servers)

    # A killed demo cannot remove its logs.
    with demo(
        {**os.environ, **servers, "TMPDIR": str(tmp_path)}, "--orders", small_trace(tmp_path / "orders.csv")
    ) as process:
        assert process.stdout is not None
        assert any("starting five workers" in line for line in process.stdout)
        family = psutil.Process(process.pid)
        assert eventually(lambda: len(family.children(recursive=True)) >= 8)
        children = family.children(recursive=True)
        process.send_signal(number)
        process.wait(timeout=30)

    assert process.returncode == exit_code
    assert eventually(lambda: all(has_ended(child) for child in children))
    left = databases(servers) - before
    drop(servers, left)
    # Nobody is there any more to drop the database of a demo that was killed.
    assert left == set() or number == signal.SIGKILL
