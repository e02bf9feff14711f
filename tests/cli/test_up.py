"""`harbor up` in a directory of its own, with its own servers, as somebody with a new checkout starts it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

import psutil
import pytest

from cli import children
from cli.flower import Access
from db import engine, reservations
from db.session import transaction
from db.settings import URLS, Settings, settings
from tests.factories import make_variant, stock_of
from tests.processes import ROOT, Process, python, run, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

START_SECONDS = 60
STOP_SECONDS = 30
SWEEP_SECONDS = 30  # A sweep every 5 s, on a machine that may be busy.
CHILDREN = {"expiry", "default", "bulk", "relay-1", "relay-2", "beat-1", "beat-2", "flower"}


@contextmanager
def open_directory() -> Iterator[Path]:
    """A directory that every account can enter, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="harbor-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    with open_directory() as path:
        yield path


def environ_of(**told: str) -> dict[str, str]:
    without = {name: value for name, value in os.environ.items() if not name.startswith("HARBOR_")}
    return {**without, "PYTHONPATH": str(ROOT), "HARBOR_FLOWER_PORT": "0", **told}


@contextmanager
def harbor_up(directory: Path, environ: dict[str, str], *options: str) -> Iterator[Process]:
    """A `harbor up` that has just been started; nothing of it is left afterwards."""
    log = directory / "log"
    with (
        log.open("wb") as written,
        subprocess.Popen(
            python("-m", "cli", "up", *options), cwd=directory, env=environ, stdout=written, stderr=subprocess.STDOUT
        ) as popen,
    ):
        try:
            yield Process(popen, log)
        finally:
            members = family(Process(popen, log))
            popen.kill()
            for member in members:
                with suppress(psutil.NoSuchProcess):
                    member.kill()


def wait_for_children(up: Process, names: set[str]) -> None:
    """Wait until each of them has become Celery."""
    wait_until(lambda: all(child(up, name) for name in names) or not up.runs(), START_SECONDS, up)
    assert up.runs(), up.text()


def family(up: Process) -> list[psutil.Process]:
    """All that it has started, directly or not."""
    if not up.runs():
        return []
    return psutil.Process(up.popen.pid).children(recursive=True)


def child(up: Process, name: str) -> psutil.Process | None:
    """The process of a child, once it has become what it is to be; of two of a kind the older one is the first."""
    kind, _, number = name.partition("-")
    found: list[psutil.Process] = []
    members = psutil.Process(up.popen.pid).children() if up.runs() else []
    for member in sorted(members, key=psutil.Process.create_time):
        with suppress(psutil.NoSuchProcess):
            command = member.cmdline()
            is_celery = "celery" in command and (kind in command or f"--queues={kind}" in command)
            if is_celery or (command and command[-1] == kind == "relay"):
                found.append(member)
    place = int(number or 1) - 1
    return found[place] if place < len(found) else None


def gone(member: psutil.Process) -> bool:
    """Whether a process has ended. Nobody may have asked for its exit code yet: its parent may be dead, too."""
    try:
        return not member.is_running() or member.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture(scope="module")
def up(checkout: Path) -> Iterator[Process]:
    with harbor_up(checkout, environ_of()) as running:
        wait_for_children(running, CHILDREN)
        yield running


@pytest.fixture
def inside(up: Process, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process in that directory, finding the servers as every process there does."""
    for name in (*URLS, "HARBOR_ENV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(checkout)
    settings.cache_clear()
    engine.dispose()
    yield
    engine.dispose()
    settings.cache_clear()


def test_it_says_where_to_look_and_how_to_stop(up: Process) -> None:
    text = up.text()

    assert "Ctrl-C stops it" in text
    assert re.search(r"Flower is at http://127\.0\.0\.1:\d+: user harbor, password \S+", text)


def test_the_urls_are_for_their_owner_alone(up: Process, checkout: Path) -> None:
    told = checkout / ".harbor" / "stack.env"

    assert stat.S_IMODE(told.stat().st_mode) == 0o600
    assert re.findall("^(HARBOR_[A-Z]+_URL)=", told.read_text(), re.MULTILINE) == list(URLS)


@pytest.mark.usefixtures("inside")
def test_a_hold_expires(up: Process) -> None:
    variant_id = make_variant(stock=3)

    with transaction() as session:
        reservations.reserve(session, "order-1", {variant_id: 2}, hold=timedelta(seconds=1))
    taken = stock_of(variant_id)
    wait_until(lambda: stock_of(variant_id) == 3, SWEEP_SECONDS, up)

    assert taken == 1
    assert re.search(r"^expiry  \| .*reservations\.expired", up.text(), re.MULTILINE)


def test_a_second_one_in_the_same_directory_says_so(up: Process, checkout: Path) -> None:
    answer = run(python("-m", "cli", "up"), environ_of(), cwd=checkout)

    assert answer.returncode == 1
    assert f"up` runs in {checkout} already: press Ctrl-C" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert up.runs()


@pytest.mark.parametrize("name", ["beat-2", "relay-2", "bulk"])
def test_what_dies_is_started_again(up: Process, name: str) -> None:
    first = child(up, name)
    assert first is not None

    first.kill()
    wait_until(lambda: (child(up, name) or first).pid != first.pid, START_SECONDS, up)

    assert re.search(rf"^{name:<8}\| was ended by SIGKILL; it starts again in 1 s$", up.text(), re.MULTILINE)


def test_the_password_of_flower_is_kept_for_its_owner(up: Process, checkout: Path) -> None:
    kept = checkout / ".harbor" / "flower_password"

    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert f"password {kept.read_text().strip()} (kept in .harbor/flower_password)" in up.text()


def test_ctrl_c_stops_everything(up: Process, checkout: Path) -> None:
    members = family(up)

    up.popen.send_signal(signal.SIGINT)
    wait_until(lambda: not up.runs(), STOP_SECONDS, up)

    assert up.popen.returncode == 0
    assert len(members) > len(CHILDREN)
    wait_until(lambda: all(map(gone, members)), STOP_SECONDS, up)
    assert not (checkout / ".harbor" / "stack.env").exists()
    assert up.text().endswith("Harbor has stopped.\n")


def test_the_password_of_flower_is_the_same_at_the_next_start(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    told = Settings.model_construct(env="dev", flower_password=None, flower_address="127.0.0.1", flower_port=0)

    assert Access.of(told).password == (checkout / ".harbor" / "flower_password").read_text().strip()


def test_a_server_that_dies_ends_everything_in_one_line() -> None:
    with open_directory() as directory, harbor_up(directory, environ_of(), "--no-flower") as up:
        wait_for_children(up, CHILDREN - {"flower"})
        members = family(up)
        (valkey,) = [member for member in members if member.name() == "valkey-server"]

        valkey.kill()
        wait_until(lambda: not up.runs(), STOP_SECONDS, up)

        assert up.popen.returncode == 1
        data = directory / ".harbor" / "stack"
        assert up.text().splitlines()[-1] == (
            f"harbor: valkey was ended by SIGKILL; its log and its data are in {data}"
        )
        wait_until(lambda: all(map(gone, members)), STOP_SECONDS, up)
        assert not (directory / ".harbor" / "stack.env").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a process when its parent dies")
def test_nothing_outlives_a_kill(environ: dict[str, str], tmp_path: Path) -> None:
    told = {name: value for name, value in environ.items() if name.startswith("HARBOR_")}
    with harbor_up(tmp_path, environ_of(**told), "--no-flower") as up:
        wait_for_children(up, CHILDREN - {"flower"})
        wait_until(lambda: up.text().count(" ready.") == 3, START_SECONDS, up)
        members = family(up)

        up.popen.kill()

        wait_until(lambda: all(map(gone, members)), STOP_SECONDS, up)
        assert len(members) >= len(CHILDREN) - 1


def test_a_flood_of_lines_does_not_keep_a_stop_waiting() -> None:
    log: SimpleQueue[tuple[str, str]] = SimpleQueue()
    log.put(("expiry", "one more"))

    children._pass_on(log, lambda name, line: log.put((name, line)))

    assert not log.empty()


def test_sigterm_while_it_starts_leaves_nothing() -> None:
    with open_directory() as directory, harbor_up(directory, environ_of()) as starting:
        wait_until(lambda: "are starting" in starting.text(), START_SECONDS, starting)
        members = family(starting)

        starting.popen.terminate()
        wait_until(lambda: not starting.runs(), STOP_SECONDS, starting)

        assert starting.popen.returncode == 0
        wait_until(lambda: all(map(gone, members)), STOP_SECONDS, starting)
        assert not (directory / ".harbor" / "stack.env").exists()
