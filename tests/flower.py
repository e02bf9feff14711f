"""A Flower that runs, as a program asks it."""

from __future__ import annotations

import base64
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.processes import wait_until

if TYPE_CHECKING:
    from tests.processes import Process

PASSWORD = "correct-horse"
START_SECONDS = 30


@dataclass(frozen=True)
class Page:
    """A running Flower."""

    process: Process
    url: str

    def get(self, path: str, password: str | None = PASSWORD) -> tuple[int, str]:
        """The status and the text of an answer."""
        return self._ask(path, password, None)

    def post(self, path: str, password: str | None = PASSWORD) -> int:
        """The status of the answer to an order."""
        return self._ask(path, password, b"")[0]

    def _ask(self, path: str, password: str | None, body: bytes | None) -> tuple[int, str]:
        request = urllib.request.Request(f"{self.url}{path}", data=body)
        if password is not None:
            credentials = base64.b64encode(f"harbor:{password}".encode()).decode()
            request.add_header("Authorization", f"Basic {credentials}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, ""


def page_of(flower: Process) -> Page:
    """The page, once it answers."""
    wait_until(lambda: re.search(r"Flower is at (http://\S+)", flower.text()), START_SECONDS, flower)
    found = re.search(r"Flower is at (http://\S+)", flower.text())
    assert found is not None
    page = Page(flower, found[1])

    def answers() -> bool:
        try:
            return page.get("/healthcheck")[0] == 200
        except urllib.error.URLError:
            return False

    wait_until(answers, START_SECONDS, flower)
    return page
