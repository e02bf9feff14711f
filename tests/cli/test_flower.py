from __future__ import annotations

import os
import re
from functools import partial
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.broker import own_broker
from tests.flower import PASSWORD, START_SECONDS, Page, page_of
from tests.processes import ROOT, process, program, python, run, wait_until
from worker.arguments import primary_keys_only

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PAYMENT = "pay-s3cret"
CONFIRM = ["-m", "celery", "-A", "worker", "call", "reservations.confirm", "--args", f'[41, "{PAYMENT}"]']


@pytest.fixture(scope="module")
def environ(servers: dict[str, str]) -> Iterator[dict[str, str]]:
    with own_broker(servers) as broker:
        yield broker.environ({**os.environ, **servers, "HARBOR_FLOWER_PASSWORD": PASSWORD, "HARBOR_FLOWER_PORT": "0"})


@pytest.fixture(scope="module")
def flower(environ: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    log = tmp_path_factory.mktemp("flower") / "log"
    with process([program("harbor"), "flower"], environ, log) as running:
        yield page_of(running)


def knows(page: Page, text: str) -> bool:
    """Whether the tasks, as the API tells them, contain a text."""
    return text in page.get("/api/tasks")[1]


def worker_of(page: Page) -> str:
    """The name of the worker that the page knows."""
    return str(re.findall(r"expiry@[\w.-]+", page.get("/?json=1")[1])[0])


@pytest.fixture(scope="module")
def told(environ: dict[str, str], flower: Page, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The id of a task that a worker ran, with a payment among its arguments; another one waits in that worker."""
    log = tmp_path_factory.mktemp("worker") / "log"
    with process([program("harbor"), "worker", "--pool", "expiry", "--concurrency", "1"], environ, log) as worker:
        wait_until(lambda: "ready" in worker.text(), START_SECONDS, worker)
        ran = run(python(*CONFIRM), environ).stdout.strip()
        waits = run(python(*CONFIRM, "--countdown", "600"), environ).stdout.strip()
        for task_id in (ran, waits):
            wait_until(partial(knows, flower, task_id), START_SECONDS, flower.process)
        yield ran


@pytest.mark.parametrize("path", ["/", "/api/workers", "/tasks", "/api/tasks", "/worker/x", "/task/x", "/broker"])
def test_nothing_is_shown_without_the_password(flower: Page, path: str) -> None:
    assert flower.get(path, password=None)[0] == 401
    assert flower.get(path, password="wrong")[0] == 401


@pytest.mark.parametrize("path", ["/", "/api/workers", "/tasks", "/api/tasks"])
def test_everything_is_shown_with_it(flower: Page, path: str) -> None:
    assert flower.get(path)[0] == 200


@pytest.mark.parametrize("path", ["/healthcheck", "/metrics"])
def test_probes_need_no_password(flower: Page, path: str) -> None:
    assert flower.get(path, password=None)[0] == 200


@pytest.mark.parametrize(
    "order", ["/api/worker/shutdown/x", "/api/task/send-task/reservations.expire", "/api/task/revoke/x"]
)
def test_it_takes_no_orders(flower: Page, order: str) -> None:
    assert flower.post(order) == 403


def test_it_listens_on_loopback_only(flower: Page) -> None:
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(flower.process.popen.pid).net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]

    assert listening == ["127.0.0.1"]


def test_no_command_line_and_no_log_shows_the_password(flower: Page) -> None:
    family = [psutil.Process(flower.process.popen.pid), *psutil.Process(flower.process.popen.pid).children()]

    assert all(PASSWORD not in " ".join(member.cmdline()) for member in family)
    assert PASSWORD not in flower.process.text()


def test_arguments_are_shown_as_primary_keys_only(flower: Page, told: str) -> None:
    table = "/tasks/datatable?draw=1&start=0&length=10&order[0][column]=0&columns[0][data]=name"
    paths = ["/api/tasks", f"/api/task/info/{told}", f"/task/{told}", table, f"/worker/{worker_of(flower)}"]

    pages = [flower.get(path) for path in paths]

    assert [status for status, _ in pages] == [200] * len(paths)
    assert [PAYMENT in text for _, text in pages] == [False] * len(paths)
    assert ["(41, " in text for _, text in pages] == [True] * len(paths)
    assert "reservations.confirm" in pages[-1][1]


def test_a_flower_that_stores_what_it_hears_shows_payments(environ: dict[str, str], told: str, tmp_path: Path) -> None:
    careless = tmp_path / "careless.py"
    careless.write_text(
        "from flower.app import Inspector\n"
        "from flower.events import EventsState\n"
        f"exec({(ROOT / 'worker' / 'flower.py').read_text()!r})\n"
        "flower.app.Inspector = Inspector\n"
        "flower.events.EventsState = EventsState\n"
    )
    with process([program("harbor"), "flower", "--", f"--conf={careless}"], environ, tmp_path / "log") as running:
        page = page_of(running)

        def seen() -> bool:
            run(python(*CONFIRM), environ)
            return knows(page, PAYMENT)

        wait_until(seen, START_SECONDS, running)

        assert PAYMENT in page.get(f"/worker/{worker_of(page)}")[1]


def test_in_dev_a_password_is_made_up_and_printed(environ: dict[str, str], tmp_path: Path) -> None:
    alone = {name: value for name, value in environ.items() if name != "HARBOR_FLOWER_PASSWORD"}
    command = [program("harbor"), "flower", "--read-write"]
    with process(command, {**alone, "HARBOR_ENV": "dev"}, tmp_path / "log") as running:
        page = page_of(running)
        (password,) = re.findall(r"with password (\S+)", running.text())

        assert page.get("/", password=password)[0] == 200
        assert page.get("/", password="None")[0] == 401
        assert password not in " ".join(psutil.Process(running.popen.pid).cmdline())
        # Asked to be writable, it looks for the worker.
        assert page.post("/api/worker/shutdown/x", password=password) == 404


@pytest.mark.parametrize("password", [None, ""])
def test_in_prod_it_does_not_start_without_a_password(environ: dict[str, str], password: str | None) -> None:
    prod = {**environ, "HARBOR_ENV": "prod"}
    prod.pop("HARBOR_FLOWER_PASSWORD")
    if password is not None:
        prod["HARBOR_FLOWER_PASSWORD"] = password

    answer = run([program("harbor"), "flower"], prod)

    assert answer.returncode == 1
    assert answer.stderr == (
        "harbor: HARBOR_FLOWER_PASSWORD is not set, and in prod Flower does not start without it.\n"
    )


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("HARBOR_FLOWER_PASSWORD", "", "HARBOR_FLOWER_PASSWORD is not set"),
        ("HARBOR_FLOWER_PASSWORD", "Käse", "must be ASCII"),
        ("HARBOR_FLOWER_ADDRESS", "", "HARBOR_FLOWER_ADDRESS is malformed"),
    ],
)
def test_the_configuration_refuses_what_would_leave_it_open(
    environ: dict[str, str], variable: str, value: str, says: str
) -> None:
    command = python("-m", "celery", "-A", "worker", "flower", "--conf=worker/flower.py")

    answer = run(command, {**environ, variable: value})

    assert answer.returncode == 1
    assert says in answer.stderr
    assert answer.stderr.count("\n") == 1


def test_a_port_that_is_taken_is_named(environ: dict[str, str], flower: Page) -> None:
    port = flower.url.rsplit(":", 1)[1]

    answer = run([program("harbor"), "flower"], {**environ, "HARBOR_FLOWER_PORT": port})

    assert answer.returncode == 1
    assert answer.stderr.startswith(f"harbor: HARBOR_FLOWER_PORT is {port}, and 127.0.0.1 answers: ")
    assert answer.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ("(42, 'pay-1')", "(42, …)"),
        ([42, "pay-1"], "(42, …)"),
        ("[1, 2]", "(1, 2)"),
        ("()", "()"),
        ("{'reservation_id': 42, 'payment_ref': 'pay-1'}", "{reservation_id: 42, payment_ref: …}"),
        ({"ann@example.org": 1}, "{…: 1}"),
        (["6fa459ea-ee8a-3ca4-894e-db77e160355e"], "(6fa459ea-ee8a-3ca4-894e-db77e160355e)"),
        (["6fa459eaee8a3ca4894edb77e160355e-pay"], "(…)"),
        ([True, None, 1.5, {"a": 1}, [7], "42"], "(…, …, …, …, …, …)"),
        ("('aaaa...", "…"),
        ("not python", "…"),
        (7, "…"),
    ],
)
def test_what_is_no_primary_key_is_hidden(arguments: object, shown: str) -> None:
    assert primary_keys_only(arguments) == shown
