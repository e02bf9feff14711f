"""Whether an entry of the broker is a message: what kombu and Celery take for granted, and fail at where it is missing.

They fail at it after they have taken the entry, and where nothing catches it. The words that say why an entry is no
message are never words from it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from kombu.utils.json import loads

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# What Python can just read, Celery cannot send on to a child: with 930 levels a worker ended. A message itself has 3.
_DEEPEST: Final = 50
_DEEPEST_BODY: Final = 200
_TAKEN: Final[dict[str, Any]] = {
    "task": str,
    "id": str,
    "eta": str | datetime | None,
    "expires": str | datetime | int | float | None,
    "stamped_headers": list | None,
    "timelimit": list | None,
}


def problem(channel: Any, item: bytes, of: Callable[[Any, Any], str | None] | None = None) -> str | None:
    """Return why an entry cannot be read, or None for one that can. No word of it comes from the entry."""
    try:
        # kombu would replace what is not UTF-8, and run a task with arguments that nobody sent.
        told = loads(item.decode())
    except Exception:  # noqa: BLE001 - kombu's JSON has types of its own, which raise whatever they like.
        return "it is not JSON in UTF-8"
    try:
        return (of or problem_of_message)(channel, told)
    except Exception as error:  # noqa: BLE001 - made of what nobody has checked, it may fail in any way.
        return f"it does not make a message: {type(error).__name__}"


def problem_of_unacknowledged(channel: Any, told: Any) -> str | None:
    """Return why an unacknowledged entry is none, if so."""
    match told:
        case [message, str() | None, str() | None]:
            return problem_of_message(channel, message)
    return "it is not a message with its exchange and its routing key"


def problem_of_message(channel: Any, told: Any) -> str | None:
    """Return what kombu and Celery take for granted and this message lacks, if anything."""
    lacking: str | None = None
    if not isinstance(told, dict):
        lacking = "it is no object"
    elif _deeper_than(told, _DEEPEST):
        lacking = f"it is more than {_DEEPEST} levels deep"
    else:
        lacking = _missing(told)
    if lacking is None:
        channel._get_message_priority(told)  # noqa: SLF001 - what it does when the message goes back to its queue
        if channel.Message(told, channel=channel).errors:
            lacking = "its body is not packed as it says"
    return lacking


def _missing(told: dict[str, Any]) -> str | None:
    match told.get("properties"):
        case {"delivery_tag": str(tag), "delivery_info": {"exchange": str() | None, "routing_key": str() | None}}:
            tag.encode()
        case _:
            return "its properties lack a delivery tag, an exchange or a routing key"
    match told.get("headers", {}):
        case {**headers} if tells_its_task(headers):
            pass
        case _:
            return "its headers are no object, or tell its task in other types"
    match told.get("content-type"), told.get("content-encoding"), told.get("body"):
        case str() | None, str() | None, str() | bytes():
            return None
    return "its body, or the type of its body, is no text"


def problem_of_body(packed: bytes, told: Any) -> str | None:
    """Return what keeps Celery from taking a message's body, if anything.

    Args:
        packed: the body as it came.
        told: what it says.
    """
    # In the first protocol it is the body that tells the task.
    if isinstance(told, dict) and not tells_its_task(told):
        return "it tells its task in other types"
    # Most bodies have fewer brackets in all, which is far quicker to find out.
    if packed.count(b"[") + packed.count(b"{") > _DEEPEST_BODY and _deeper_than(told, _DEEPEST_BODY):
        return f"it is more than {_DEEPEST_BODY} levels deep"
    return None


def tells_its_task(told: Mapping[Any, Any]) -> bool:
    """Whether headers, or a body of the first protocol, tell of a task in types that Celery can take, or of no task."""
    return "task" not in told or (
        all(isinstance(told.get(name), types) for name, types in _TAKEN.items())
        and all(isinstance(name, str) for name in told.get("stamped_headers") or ())
        and _is_pair(told.get("timelimit") or (None, None))
    )


def _is_pair(limits: Any) -> bool:
    return len(limits) == len(("soft", "hard")) and all(isinstance(limit, int | float | None) for limit in limits)


def _deeper_than(told: Any, levels: int) -> bool:
    if not isinstance(told, (dict, list)):
        return False
    parts = told.values() if isinstance(told, dict) else told
    return not levels or any(_deeper_than(part, levels - 1) for part in parts)
