"""What a worker accepts: a message that is not a task's is refused and dropped, and never ends the worker.

Celery 5.7 reads a body that is JSON but no task's only after it has taken the message. It then stops, hands the message
back, and the next worker stops at it, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.exceptions import InvalidTaskError
from celery.worker.strategy import default

if TYPE_CHECKING:
    from collections.abc import Callable


def strategy(*args: Any, **options: Any) -> Callable[..., Any]:
    """Return Celery's own handler of a task's messages, behind a check of the message's shape."""
    handle = default(*args, **options)

    def checked(message: Any, *rest: Any, **more: Any) -> Any:
        match message.payload:
            # Protocol 2 is [args, kwargs, embed]; protocol 1, which other languages still send, is an object.
            case [list(), dict(), _] | {"task": _}:
                return handle(message, *rest, **more)
        raise InvalidTaskError("its body is not [args, kwargs, options]")

    return checked
