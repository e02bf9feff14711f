"""Flower as an operator sees it: in a browser, while a worker and Beat run; and nothing of it without the password."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from tests.acceptance.browser import PROGRAMS, Browser, find
from tests.broker import own_broker
from tests.db.conftest import shared
from tests.flower import PASSWORD, START_SECONDS, Page, page_of
from tests.processes import process, program, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["shared"]

WORKER = f"expiry@{socket.gethostname()}"
SWEEP = "reservations.expire"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def installed() -> str:
    """The path of the browser."""
    found = find()
    if found is None:
        pytest.skip(f"no browser is installed: none of {', '.join(PROGRAMS)}")
    return found


@pytest.fixture
def browser(installed: str, tmp_path: Path) -> Browser:
    """A browser that has never been used."""
    return Browser(installed, tmp_path)


@pytest.fixture(scope="module")
def flower(installed: str, shared: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A Flower that has heard of a sweep which Beat enqueued, a relay sent and a worker ran."""
    logs = tmp_path_factory.mktemp("logs")
    harbor = program("harbor")
    with own_broker(shared) as broker:
        environ = broker.environ(
            {**os.environ, **shared, "HARBOR_FLOWER_PASSWORD": PASSWORD, "HARBOR_FLOWER_PORT": "0"}
        )
        with (
            process([harbor, "flower"], environ, logs / "flower") as running,
            process([harbor, "worker", "--pool", "expiry", "--concurrency", "1"], environ, logs / "worker") as worker,
            process([harbor, "relay"], environ, logs / "relay"),
            process([harbor, "beat"], environ, logs / "beat") as beat,
        ):
            page = page_of(running)
            wait_until(lambda: SWEEP in page.get("/api/tasks?state=SUCCESS")[1], START_SECONDS, running, worker, beat)
            yield page


def address(flower: Page, path: str, password: str | None = PASSWORD) -> str:
    credentials = f"harbor:{password}@" if password else ""
    return f"{flower.url.replace('://', f'://{credentials}')}{path}"


def test_the_workers_page_shows_the_worker_online(browser: Browser, flower: Page) -> None:
    def online() -> bool:
        return any(row[:2] == [WORKER, "Online"] for row in browser.rows(address(flower, "/workers")))

    wait_until(online, START_SECONDS, flower.process)


def test_the_tasks_page_shows_a_sweep_that_has_succeeded(browser: Browser, flower: Page) -> None:
    def succeeded() -> bool:
        rows = browser.rows(address(flower, "/tasks"))
        return any(row[:1] == [SWEEP] and "SUCCESS" in row and WORKER in row for row in rows)

    wait_until(succeeded, START_SECONDS, flower.process)


@pytest.mark.parametrize(
    ("password", "sees"), [(PASSWORD, {WORKER, SWEEP}), (None, set()), ("wrong", set())], ids=["right", "no", "wrong"]
)
def test_only_the_right_password_shows_workers_and_tasks(
    browser: Browser, flower: Page, password: str | None, sees: set[str]
) -> None:
    pages = [browser.page(address(flower, path, password)) for path in ("/workers", "/tasks")]

    assert {name for name in (WORKER, SWEEP) if any(name in page for page in pages)} == sees
    # It is Flower that shows nothing, and not a browser that finds no Flower.
    assert "OK" in browser.page(address(flower, "/healthcheck", password))


def test_the_page_can_be_seen(browser: Browser, flower: Page) -> None:
    nothing = browser.screenshot("about:blank")
    seen = browser.screenshot(address(flower, "/tasks"))

    assert nothing.startswith(PNG)
    assert seen.startswith(PNG)
    assert len(seen) > 5 * len(nothing)
