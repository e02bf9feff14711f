"""Input is checked before the first statement, so that bad input writes nothing and the error names its field."""

from __future__ import annotations

from typing import Final

from db.errors import InvalidId, InvalidLimit, InvalidQuantity, InvalidText, shown

MAX_QTY: Final = 2**31 - 1
_MAX_ID: Final = 2**63 - 1


def checked_id(field: str, value: object) -> int:
    """Return `value` when it can be a primary key; a bool is no id. Raises InvalidId."""
    if type(value) is not int or not 1 <= value <= _MAX_ID:
        raise InvalidId(field=field, value=shown(value))
    return value


def checked_qty(variant_id: int, value: object, *, field: str = "qty", least: int = 1) -> int:
    """Return `value` when it is an int from `least` to 2^31-1, not 0 and no bool. Raises InvalidQuantity."""
    if type(value) is not int or not least <= value <= MAX_QTY or value == 0:
        wanted = f"from {least} to {MAX_QTY}" + ("" if least > 0 else ", not 0")
        raise InvalidQuantity(field=field, variant_id=variant_id, range=wanted, value=shown(value))
    return value


def checked_text(field: str, value: object, *, most: int = 200, secret: bool = False) -> str:
    """Return `value` when PostgreSQL can store it and a person can read it: 1 to `most` characters, no NUL.

    A `secret` value is not repeated in the error, which may be logged.

    Raises:
        InvalidText: it is no text, is empty or blank, too long, holds NUL or half of a surrogate pair.
    """
    problem = None
    if not isinstance(value, str):
        problem = "must be text"
    elif not value.strip():
        problem = "must not be empty"
    elif len(value) > most:
        problem = f"must have at most {most} characters"
    elif "\0" in value:
        problem = "must not contain the character NUL, which PostgreSQL cannot store"
    elif any("\ud800" <= character <= "\udfff" for character in value):
        problem = "must be valid Unicode"
    if problem is not None or not isinstance(value, str):
        raise InvalidText(field=field, problem=problem, value="not shown" if secret else shown(value))
    return value


def checked_limit(field: str, value: object, *, most: int) -> int:
    """Return `value` when it is an int from 1 to `most`. Raises InvalidLimit."""
    if type(value) is not int or not 1 <= value <= most:
        raise InvalidLimit(field=field, most=most, value=shown(value))
    return value
