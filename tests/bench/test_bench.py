"""`python -m bench` as people run it: in a process of its own, on real servers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url

from bench.__main__ import main

if TYPE_CHECKING:
    from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parents[2]
KEYS = {
    "reserve_hot_8",
    "reserve_hot_64",
    "reserve_many_hot",
    "sold_out",
    "reserve_basket",
    "expire_vs_rows",
    "expire_vs_limit",
    "expire_idle_ms",
    "expire_growth",
    "worker_overhead",
    "worker_rss_mb",
}
JOB_KEYS = {
    "relay_vs_send_task",
    "enqueue_bulk",
    "enqueue_cost_ms",
    "end_to_end_vs_celery",
    "end_to_end_vs_procrastinate",
    "end_to_end_vs_pgqueuer",
    "latency_p50_ms",
    "latency_p99_ms",
    "relay_backlog_growth",
    "idle_cost",
}
UNITS = {"ms": "ms", "mb": "MB", "cost": "%"}


def bench(servers: dict[str, str], *arguments: str, after: str = "") -> CompletedProcess[str]:
    """Run the bench with small numbers; `after` is Python that replaces a part of it first."""
    replaced = ["-c", f"{after}; import sys; from bench.__main__ import main; sys.exit(main())"]
    return subprocess.run(
        [sys.executable, *(replaced if after else ["-m", "bench"]), *arguments],
        cwd=ROOT,
        env={**os.environ, **servers},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def left_by_the_bench(servers: dict[str, str]) -> list[str]:
    """The databases of PostgreSQL and Redis that are still there or in use."""
    url = make_url(servers["HARBOR_DATABASE_URL"]).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'harbor\\_bench\\_%'")
        left = [name for (name,) in found]
    with redis.Redis.from_url(servers["HARBOR_BROKER_URL"]) as client:
        return left + [f"{name} of Redis" for name in client.info("keyspace") if name not in {"db0", "db1"}]


def read(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return told


@pytest.mark.parametrize(
    ("name", "keys", "key", "more"),
    [
        ("reservations", KEYS, "expire_vs_limit", "worst_batch_ms"),
        ("jobs", JOB_KEYS, "relay_backlog_growth", "paused_rows_per_s"),
    ],
)
def test_a_run_measures_every_key_and_leaves_no_database_behind(
    servers: dict[str, str], tmp_path: Path, name: str, keys: set[str], key: str, more: str
) -> None:
    file = tmp_path / "bench.json"

    done = bench(servers, name, "--quick", "--json", str(file))

    assert done.returncode == 0, done.stdout + done.stderr
    told = read(file)
    assert told["failed"] == {}
    assert told["results"].keys() == keys
    assert told["machine"].keys() == {"cores", "python", "postgresql", "sqlalchemy"}
    assert told["results"][key][more] > 0
    for measured, result in told["results"].items():
        assert measured in done.stdout
        assert result["spread"]["min"] <= result["value"] <= result["spread"]["max"]
        assert result["unit"] == UNITS.get(measured.rpartition("_")[2], "ratio")
        # What is added is a difference, which noise can turn round.
        assert result["value"] > 0 or measured in {"worker_rss_mb", "enqueue_cost_ms"}
        assert isinstance(result["met"], bool)
    assert left_by_the_bench(servers) == []


@pytest.mark.parametrize(
    ("side", "key", "replaced", "by"),
    [
        ("rival", "reserve_hot_8", "rival.reserve", "reserve_and_sell_again"),
        ("harbor", "reserve_hot_8", "reserve.reserve", "reserve_and_sell_again"),
        ("harbor", "reserve_basket", "reserve.reserve", "reserve_nothing"),
        ("harbor", "reserve_hot_64", "reserve.reserve_in_turn", "reserve_and_sell_again"),
        ("few", "reserve_hot_64", "reserve.reserve", "reserve_and_sell_again"),
        ("harbor", "reserve_many_hot", "reserve.reserve_many", "reserve_many_and_tell_less"),
        ("harbor", "sold_out", "reserve.reserve", "grant_what_is_sold_out"),
        ("harbor", "sold_out", "reserve.reserve", "refuse_and_put_on_sale"),
        ("old", "expire_growth", "tasks.sweep", "sweep_and_forget_a_unit"),
        ("rival", "expire_vs_rows", "rival.sweep", "sweep_and_double"),
        ("rival", "expire_vs_rows", "rival.sweep", "sweep_one_less"),
    ],
)
def test_a_side_that_works_wrong_gets_no_number(
    servers: dict[str, str], tmp_path: Path, side: str, key: str, replaced: str, by: str
) -> None:
    file = tmp_path / "bench.json"
    breaking = (
        "from bench.reservations import reserve, rival; from tasks import reservations as tasks;"
        f" from tests.bench import broken; {replaced} = broken.{by}"
    )

    done = bench(servers, "reservations", "--quick", "--only", key, "--json", str(file), after=breaking)

    assert done.returncode == 1, done.stderr
    told = read(file)
    assert told["results"] == {}
    assert told["failed"][key].startswith(side)
    assert f"{key}: no number" in done.stdout
    assert left_by_the_bench(servers) == []


@pytest.mark.parametrize(
    ("side", "app", "said"),
    [
        ("harbor", "losing", r"harbor ran \d{1,2} of 50 tasks, 0 of them more than once"),
        ("bare", "repeating", r"bare ran 50 of 50 tasks, [1-9]\d? of them more than once"),
    ],
)
def test_a_worker_that_loses_or_repeats_a_task_gets_no_number(
    servers: dict[str, str], tmp_path: Path, side: str, app: str, said: str
) -> None:
    file = tmp_path / "bench.json"
    breaking = (
        "from dataclasses import replace; from bench.worker import overhead;"
        f" overhead.{side.upper()} = replace(overhead.{side.upper()}, module='tests.bench.{app}')"
    )

    done = bench(servers, "reservations", "--quick", "--only", "worker_overhead", "--json", str(file), after=breaking)

    assert done.returncode == 1, done.stderr
    assert re.fullmatch(said, read(file)["failed"]["worker_overhead"])
    assert left_by_the_bench(servers) == []


@pytest.mark.parametrize(
    ("key", "breaking", "said"),
    [
        ("latency_p50_ms", "from bench.jobs import harbor; harbor.APP = 'tests.bench.twice'", r"\d+ repeated"),
        (
            "relay_vs_send_task",
            "from worker.relay import Relay; Relay._publish = lambda self, producer, messages: None",
            r"0 of 100 messages were published",
        ),
        ("enqueue_bulk", "from db import jobs; jobs.enqueue_many = lambda session, jobs: []", r"0 jobs that are ready"),
    ],
)
def test_jobs_that_are_lost_or_repeated_give_no_number(
    servers: dict[str, str], tmp_path: Path, key: str, breaking: str, said: str
) -> None:
    file = tmp_path / "bench.json"

    done = bench(servers, "jobs", "--quick", "--only", key, "--json", str(file), after=breaking)

    assert done.returncode == 1, done.stderr
    assert re.search(said, read(file)["failed"][key])
    assert left_by_the_bench(servers) == []


def test_servers_without_room_for_the_bench_are_left_alone(servers: dict[str, str]) -> None:
    done = bench(servers, "reservations", "--quick", after="from bench import redis; redis._DATABASES = ()")

    assert done.returncode == 1
    assert done.stderr.startswith("bench: each database from 2 to 15")
    assert left_by_the_bench(servers) == []


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--enforce"], 1)])
def test_a_missed_target_fails_the_run_only_when_enforced(
    servers: dict[str, str], tmp_path: Path, options: list[str], code: int
) -> None:
    file = tmp_path / "bench.json"
    impossible = (
        "from dataclasses import replace; from bench.reservations import reserve;"
        " reserve.MANY_HOT = replace(reserve.MANY_HOT, target=1e9)"
    )

    done = bench(
        servers,
        "reservations",
        "--quick",
        "--only",
        "reserve_many_hot",
        "--json",
        str(file),
        *options,
        after=impossible,
    )

    assert done.returncode == code, done.stderr
    assert read(file)["results"]["reserve_many_hot"]["met"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "exit code"),
        (["--list"], 0, "worker_rss_mb"),
        ([], 2, "say what to measure: reservations, jobs"),
        (["reservations", "--json", "nowhere/bench.json"], 2, "there is no such directory"),
        (["reservations", "--only", "speed"], 2, "reserve_hot_8"),
    ],
)
def test_the_command_line_teaches_without_a_server(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        sys.exit(main(arguments))

    assert ended.value.code == code
    told = capsys.readouterr()
    assert said in told.out + told.err
