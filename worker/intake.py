"""What a worker accepts: a message that is not a task's is refused and dropped, and never ends the worker.

Celery 5.7 reads a body that is JSON but no task's only after it has taken the message. It then stops, hands the message
back, and the next worker stops at it, too. What cannot be read at all never comes here: worker/transport.py parks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import InvalidTaskError
from celery.worker import request
from celery.worker.strategy import default

from worker.envelope import JOB_HEADER

if TYPE_CHECKING:
    from collections.abc import Callable


def strategy(*args: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's own handler of a task's messages, behind a check of the message's shape."""
    handle = default(*args, **options)

    def checked(message: Any, *rest: Any, **more: Any) -> Any:
        # Protocol 2 names the task in its headers; protocol 1, which other languages still send, in its body.
        match "task" in message.headers, message.payload:
            case (True, [list(), dict(), _]) | (False, {"task": _}):
                return handle(message, *rest, **more)
        raise InvalidTaskError("its body is not [args, kwargs, options]")

    return checked


connection_is_lost = False
"""Set while the consumer gets ready to connect again (worker/consumer.py). Requests do not know their consumer."""


class Request(request.Request):
    """A message in a worker's hands. When its child is lost, a job is not sent again from here.

    Its row says what becomes of it, as soon as the lease runs out. Celery's retry would be a second message, and count
    for itself.
    """

    def _retry_worker_lost(self, *told: Any) -> bool:
        request: Any = super()
        if request.request_dict.get(JOB_HEADER):
            return False
        return bool(request._retry_worker_lost(*told))  # noqa: SLF001 - there is no other place to say so

    def cancel(self, pool: Any, *how: Any, **more: Any) -> None:
        """Stop running it, unless it is a job and only the connection to the broker is lost."""
        request: Any = super()
        if not (connection_is_lost and request.request_dict.get(JOB_HEADER)):
            request.cancel(pool, *how, **more)
