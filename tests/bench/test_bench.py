"""`python -m bench` as people run it: in a process of its own, on real servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy.engine import make_url

from bench.__main__ import main

if TYPE_CHECKING:
    from subprocess import CompletedProcess

ROOT = Path(__file__).resolve().parents[2]
KEYS = {"reserve_hot_8", "reserve_basket", "expire_vs_rows", "expire_vs_limit", "expire_idle_ms"}


def bench(servers: dict[str, str], *arguments: str, after: str = "") -> CompletedProcess[str]:
    """Run the bench with small numbers; `after` is Python that replaces a part of it first."""
    replaced = ["-c", f"{after}; import sys; from bench.__main__ import main; sys.exit(main())"]
    return subprocess.run(
        [sys.executable, *(replaced if after else ["-m", "bench"]), *arguments],
        cwd=ROOT,
        env={**os.environ, **servers},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def databases_of_the_bench(servers: dict[str, str]) -> list[str]:
    url = make_url(servers["HARBOR_DATABASE_URL"]).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'harbor\\_bench\\_%'")
        return [name for (name,) in found]


def read(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return told


def test_a_run_measures_every_key_and_leaves_no_database_behind(servers: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "bench.json"

    done = bench(servers, "reservations", "--quick", "--json", str(file))

    assert done.returncode == 0, done.stderr
    told = read(file)
    assert told["failed"] == {}
    assert told["results"].keys() == KEYS
    assert told["machine"].keys() == {"cores", "python", "postgresql", "sqlalchemy"}
    for key, result in told["results"].items():
        assert key in done.stdout
        assert result["value"] > 0
        assert result["spread"]["min"] <= result["value"] <= result["spread"]["max"]
        assert result["unit"] == ("ms" if key.endswith("_ms") else "ratio")
        assert isinstance(result["met"], bool)
    assert told["results"]["expire_vs_limit"]["worst_batch_ms"] > 0
    assert databases_of_the_bench(servers) == []


@pytest.mark.parametrize(
    ("side", "key", "replaced", "by"),
    [
        ("rival", "reserve_hot_8", "rival.reserve", "reserve_and_sell_again"),
        ("harbor", "reserve_hot_8", "reserve.reserve", "reserve_and_sell_again"),
        ("harbor", "reserve_basket", "reserve.reserve", "reserve_nothing"),
        ("rival", "expire_vs_rows", "rival.sweep", "sweep_and_double"),
        ("rival", "expire_vs_rows", "rival.sweep", "sweep_one_less"),
    ],
)
def test_a_side_that_works_wrong_gets_no_number(
    servers: dict[str, str], tmp_path: Path, side: str, key: str, replaced: str, by: str
) -> None:
    file = tmp_path / "bench.json"
    breaking = (
        f"from bench.reservations import reserve, rival; from tests.bench import broken; {replaced} = broken.{by}"
    )

    done = bench(servers, "reservations", "--quick", "--only", key, "--json", str(file), after=breaking)

    assert done.returncode == 1, done.stderr
    told = read(file)
    assert told["results"] == {}
    assert told["failed"][key].startswith(side)
    assert f"{key}: no number" in done.stdout
    assert databases_of_the_bench(servers) == []


@pytest.mark.parametrize(("options", "code"), [([], 0), (["--enforce"], 1)])
def test_a_missed_target_fails_the_run_only_when_enforced(
    servers: dict[str, str], tmp_path: Path, options: list[str], code: int
) -> None:
    file = tmp_path / "bench.json"
    impossible = (
        "from dataclasses import replace; from bench.reservations import expire;"
        " expire.IDLE = replace(expire.IDLE, target=0)"
    )

    done = bench(
        servers, "reservations", "--quick", "--only", "expire_idle_ms", "--json", str(file), *options, after=impossible
    )

    assert done.returncode == code, done.stderr
    assert read(file)["results"]["expire_idle_ms"]["met"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--help"], 0, "exit code"),
        (["--list"], 0, "expire_vs_limit"),
        ([], 2, "say what to measure: reservations"),
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
