"""Tests that start workers have a broker of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.broker import Broker, own_broker

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def broker(environ: dict[str, str]) -> Iterator[Broker]:
    """An empty broker of this test's own."""
    with own_broker(environ) as broker:
        yield broker
