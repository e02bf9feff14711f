"""How PostgreSQL really carried out the statements of a call: auto_explain tells each plan, with what it read.

Nothing is copied from the modules: the statements are those that the call sends, and those inside of
harbor_reserve_v1 that it runs.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from psycopg.errors import Diagnostic
    from sqlalchemy.orm import Session

CUSTOM, GENERIC = "force_custom_plan", "force_generic_plan"

_TELL = {
    "log_min_duration": "0",
    "log_analyze": "on",
    "log_buffers": "on",
    "log_timing": "off",
    "log_nested_statements": "on",
    "log_format": "json",
    "log_level": "notice",
}


@dataclass(frozen=True)
class Plan:
    """What was done for one statement."""

    statement: str
    root: dict[str, Any]

    @property
    def nodes(self) -> list[dict[str, Any]]:
        """Every node, the root first."""
        return list(_with_children(self.root))

    @property
    def tables(self) -> set[str]:
        """The tables that it came to read or write."""
        return {node["Relation Name"] for node in self.nodes if "Relation Name" in node and node["Actual Loops"]}

    @property
    def read_whole(self) -> set[str]:
        """The tables that it reads from their first page to their last."""
        return {node["Relation Name"] for node in self.nodes if node["Node Type"] == "Seq Scan"}

    @property
    def indexes(self) -> set[str]:
        """The indexes by which it finds rows."""
        return {node["Index Name"] for node in self.nodes if "Index Name" in node}

    @property
    def buffers(self) -> int:
        """Pages that it looked at, from the cache or the disk, with all that it caused."""
        return int(self.root["Shared Hit Blocks"] + self.root["Shared Read Blocks"])

    @property
    def discarded(self) -> int:
        """Rows that it read only to find out that they were not wanted."""
        return sum(int(node.get("Rows Removed by Filter", 0) * node["Actual Loops"]) for node in self.nodes)

    @property
    def checks_a_foreign_key(self) -> bool:
        """Whether it is PostgreSQL's own check of one new row."""
        return self.statement.startswith("SELECT 1 FROM ONLY")


def _with_children(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _with_children(child)


@contextmanager
def explained(session: Session, mode: str) -> Iterator[list[Plan]]:
    """Collect the plans of all that the session does in the block, each statement prepared at once.

    Args:
        session: in a transaction that is rolled back afterwards.
        mode: CUSTOM lets each execution be planned for its values, GENERIC makes one plan for all of them, which is
            what a prepared statement has after its fifth execution when it is not dearer.
    """
    connection: Any = session.connection().connection.driver_connection
    plans: list[Plan] = []

    def collect(notice: Diagnostic) -> None:
        _, _, told = (notice.message_primary or "").partition("plan:\n")
        if told:
            plan = json.loads(told)
            plans.append(Plan(" ".join(plan["Query Text"].split()), plan["Plan"]))

    threshold, connection.prepare_threshold = connection.prepare_threshold, 0
    connection.execute("LOAD 'auto_explain'")
    for name, setting in _TELL.items():
        connection.execute(f"SET LOCAL auto_explain.{name} = {setting}")
    connection.execute(f"SET LOCAL plan_cache_mode = {mode}")
    connection.add_notice_handler(collect)
    try:
        yield plans
        # A plan is told when its statement is put away, which the next one does.
        connection.execute("SELECT")
    finally:
        connection.remove_notice_handler(collect)
        connection.prepare_threshold = threshold
