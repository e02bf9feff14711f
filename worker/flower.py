"""Flower's configuration file: `harbor flower` is `celery -A worker flower --conf=worker/flower.py`.

Promise: nobody sees a task without the password, nobody changes one unless that was asked for, and nobody sees of its
arguments more than primary keys. Flower answers two paths without a password: /healthcheck, and /metrics with the names
of workers and tasks. So it listens on loopback unless HARBOR_FLOWER_ADDRESS says otherwise, and then something in front
of it decides who may reach them.

Secrets come from the settings, never from the command line, which everybody on the machine can read. The names in lower
case are Flower's options.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, Any

import flower.app
import flower.events
import flower.inspector

from db.errors import SettingsError
from db.settings import settings
from worker.arguments import redacted
from worker.celery import app
from worker.logging import configure

if TYPE_CHECKING:
    from db.settings import Settings


class _DiscreetEvents(flower.events.EventsState):  # type: ignore[misc] # Flower ships no types.
    """Forgets arguments before they are stored: Flower's own `format_task` covers its pages, and not its API."""

    def event(self, event: dict[str, Any]) -> None:
        super().event(redacted(event))


class _DiscreetInspector(flower.inspector.Inspector):  # type: ignore[misc] # Flower ships no types.
    """Forgets the arguments of the tasks that a worker says it has."""

    def _on_update(self, workername: str, method: str, response: Any) -> None:
        if method in {"active", "reserved", "scheduled"}:
            response = [self._without_arguments(told) for told in response]
        super()._on_update(workername, method, response)

    @staticmethod
    def _without_arguments(told: dict[str, Any]) -> dict[str, Any]:
        # What waits for its time is wrapped.
        return {**told, "request": redacted(told["request"])} if "request" in told else redacted(told)


def _checked_password(told: Settings) -> str:
    password = told.flower_password.get_secret_value() if told.flower_password else ""
    if not password:
        raise SettingsError(variable="HARBOR_FLOWER_PASSWORD", problem="is not set, and Flower opens for nobody else")
    if not f"{told.flower_user}{password}".isascii():
        # Flower compares them in a way that takes nothing else, and would answer each request with an error.
        raise SettingsError(variable="HARBOR_FLOWER_USER and HARBOR_FLOWER_PASSWORD", problem="must be ASCII")
    return password


try:
    _told = settings()
    _password = _checked_password(_told)
except SettingsError as error:
    raise SystemExit(f"harbor: {error}") from None

configure(_told)
# Flower asks workers from many threads; each holds one connection of the pool while it waits for a second one, so that
# with a limit all of them can wait for each other for ever (seen with 4). This way there is no pool.
app.conf.broker_pool_limit = None
flower.events.EventsState = _DiscreetEvents
flower.app.Inspector = _DiscreetInspector

address = _told.flower_address
port = _told.flower_port
basic_auth = [f"{_told.flower_user}:{_password}"]
# Flower's default changes with each start, which ends every session.
cookie_secret = (
    _told.flower_cookie_secret.get_secret_value()
    if _told.flower_cookie_secret
    else hmac.digest(_password.encode(), b"harbor flower cookie", "sha256").hex()
)
read_only = _told.flower_read_only

# Its memory is bounded, and what it knows is not written down: the truth is in PostgreSQL.
max_tasks = 10_000
purge_offline_workers = 300
persistent = False
# The workers send their events without being asked for them every five seconds.
enable_events = False
