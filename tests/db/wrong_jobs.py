"""Wrong jobs, and what is said about each: one table for everything that enqueues."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

TASK = "sample.pay"
YEAR = 365 * 86_400
AT = "2026-11-21T12:00:00+00:00"
DEEP: Any = json.loads("[" * 100 + "]" * 100)


@dataclass(frozen=True)
class Wrong:
    """A job that is refused; `problem` is a part of what is said about `field`. What is not given is right."""

    named: str
    problem: str
    task: Any = TASK
    args: Any = (42,)
    kwargs: Any = field(default_factory=lambda: {"payment_ref": "pay-1"})
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.named} {self.problem}"


def option(name: str, value_: Any, problem: str, **more: Any) -> Wrong:
    return Wrong(name, problem, options={name: value_, **more})


# What JSON can say, and so both callers.
BOTH = [
    Wrong("task", "is unknown", task="sample.unknown"),
    Wrong("task", "is unknown", task="Sample.pay"),
    Wrong("task", "is unknown", task="x" * 5_000),
    Wrong("task", "must be the name of a task", task=""),
    Wrong("reservation_id", "is missing", args=()),
    Wrong("payment_ref", "is missing", kwargs={}),
    Wrong("reservation_id", "must be of type integer, and was of type string", args=("42",)),
    Wrong("reservation_id", "must be of type integer, and was of type number", args=(42.5,)),
    Wrong("reservation_id", "must be of type integer, and was of type boolean", args=(True,)),
    Wrong("reservation_id", "must be of type integer, and was of type null", args=(None,)),
    Wrong("reservation_id", "must be of type integer, and was of type array", args=([42],)),
    Wrong("payment_ref", "must be of type string, and was of type object", kwargs={"payment_ref": {}}),
    Wrong("args", "has 3 values, and the task takes 2", args=(42, "pay-1", "more"), kwargs={}),
    Wrong("payment_ref", "is given twice, by place and by name", args=(42, "pay-1")),
    Wrong("amount", "is no parameter of the task", kwargs={"payment_ref": "pay-1", "amount": 5}),
    Wrong("x" * 80, "is no parameter of the task", kwargs={"payment_ref": "pay-1", "x" * 9_000: 5}),
    Wrong('""', "is no parameter of the task", kwargs={"payment_ref": "pay-1", "": 5}),
    Wrong("args", "and kwargs are more than 64 KB together", kwargs={"payment_ref": "x" * 65_536}),
    Wrong("args", "and kwargs are nested more than 100 deep", args=(DEEP,)),
    option("delay", -1, "is negative"),
    option("delay", -0.001, "is negative"),
    option("delay", YEAR + 1, "is more than a year"),
    option("delay", 1e300, "is more than a year"),
    option("delay", "5", "must be a"),
    option("delay", True, "must be a"),
    option("delay", [5], "must be a"),
    option("expires", -1, "is negative"),
    option("expires", YEAR + 1, "is more than a year"),
    option("expires", "5", "must be a"),
    option("expires", 0, "is not after the moment at which the job is due"),
    option("expires", 60, "is not after the moment at which the job is due", delay=60),
    *(option("priority", wrong, "must be from 0, the first, to 9") for wrong in (-1, 10, 10**30)),
    *(option("priority", wrong, "must be an integer") for wrong in ("high", True, 5.5, [5])),
    *(option("max_attempts", wrong, "must be from 1 to 1000") for wrong in (0, -1, 1_001)),
    *(option("max_attempts", wrong, "must be an integer") for wrong in ("many", False, 5.5)),
    *(
        option(key, wrong, "must be a text of 1 to 255 characters")
        for key in ("dedupe_key", "ordering_key")
        for wrong in ("", "x" * 256, 7, ["key"])
    ),
]

# What Python's values are before they are JSON.
ONLY_PYTHON = [
    Wrong("task", "must be the name of a task", task=None),
    Wrong("task", "holds a NUL character", task="sample\0pay"),
    Wrong("task", "holds half a character", task="sample\ud83d"),
    *(
        Wrong("args[0]", "is not JSON", args=(wrong,))
        for wrong in (
            object(),
            float("nan"),
            float("-inf"),
            b"42",
            {42},
            Decimal(1),
            uuid4(),
            10**5_000,
            datetime.now(UTC),
        )
    ),
    Wrong("payment_ref", "is not JSON", kwargs={"payment_ref": [{"deep": {1, 2}}]}),
    Wrong("payment_ref", "is not JSON", kwargs={"payment_ref": {(1, 2): "a tuple as a key"}}),
    Wrong("payment_ref", "holds a NUL character", kwargs={"payment_ref": "pay\0"}),
    Wrong("payment_ref", "holds a NUL character", kwargs={"payment_ref": [{"pay\0": 1}]}),
    Wrong("payment_ref", "holds a NUL character", args=("\\u0000",), kwargs={"payment_ref": "\\\\\0"}),
    Wrong("payment_ref", "holds half a character", kwargs={"payment_ref": "pay \ud83d"}),
    Wrong("kwargs", "holds a NUL character", kwargs={"pay\0": 1}),
    option("delay", timedelta(seconds=-1), "is negative"),
    option("delay", timedelta.max, "is more than a year"),
    option("delay", float("nan"), "is not JSON"),
    option("delay", Decimal(5), "must be a timedelta or a number of seconds"),
    option("at", AT, "must be a datetime"),
    option("at", datetime(2026, 11, 21), "is naive: it lacks its offset from UTC"),  # noqa: DTZ001 - that is what is wrong
    option("at", datetime.now(UTC) + timedelta(days=366), "is more than a year ahead"),
    option("at", datetime.max.replace(tzinfo=UTC), "is more than a year ahead"),
    option("at", datetime.now(UTC), "and delay exclude each other", delay=5),
    option("at", datetime.now(UTC), "and delay exclude each other", delay=0),
    option("expires", float("inf"), "is not JSON"),
    option("priority", object(), "is not JSON"),
    option("dedupe_key", "key\0", "holds a NUL character"),
    option("ordering_key", "\udc80", "holds half a character"),
]

# What only plain SQL can say: Python gives lists and dicts, and its own options.
ONLY_SQL = [
    Wrong("args", "must be a list", args={"reservation_id": 42}),
    Wrong("args", "must be a list", args="42"),
    Wrong("kwargs", "must be an object", kwargs=["pay-1"]),
    Wrong("options", "must be an object", options=["delay"]),  # type: ignore[arg-type] # that is what is wrong
    option("delai", 5, "is no option of a job"),
    option("at", "2026-11-21T12:00:00", "is naive: it lacks its offset from UTC"),
    option("at", "2026-11-21", "must be a time in ISO 8601, with its offset from UTC"),
    option("at", "tomorrow", "must be a time in ISO 8601, with its offset from UTC"),
    option("at", "infinity", "must be a time in ISO 8601, with its offset from UTC"),
    option("at", 1_795_000_000, "must be a time in ISO 8601, with its offset from UTC"),
    option("at", "2026-02-30T12:00:00Z", "is no time"),
    option("at", "2026-11-21T25:61:00+00:00", "is no time"),
    option("at", "2026-11-21T12:00:00+99:00", "is no time"),
    option("at", "2999-01-01T00:00:00Z", "is more than a year ahead"),
    option("at", AT, "and delay exclude each other", delay=5),
]
