from __future__ import annotations

import logging
import os

import pytest

from tests.processes import python, run

LOG = """
import logging
from db.settings import settings
from worker.logging import configure
configure(settings())
logging.getLogger({name!r}).log({level}, "spoken")
"""


def spoken(servers: dict[str, str], name: str, level: int) -> bool:
    """Whether a process of Harbor lets a library's line through."""
    answer = run(python("-c", LOG.format(name=name, level=level)), {**os.environ, **servers})
    assert answer.returncode == 0, answer.stderr
    return "spoken" in answer.stderr


@pytest.mark.parametrize(
    ("name", "quiet", "loud"),
    [
        ("celery.app.trace", logging.INFO, logging.WARNING),
        ("celery.beat", logging.INFO, logging.WARNING),
        ("flower.inspector", logging.WARNING, logging.ERROR),
    ],
)
def test_what_libraries_repeat_is_left_out_and_what_matters_is_not(
    servers: dict[str, str], name: str, quiet: int, loud: int
) -> None:
    assert not spoken(servers, name, quiet)
    assert spoken(servers, name, loud)
