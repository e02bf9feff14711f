"""A member of harbor_enqueuer may call four functions, and reads and writes nothing of Harbor's beside."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql

from tests import ledger
from tests.db.psql import role, url_of
from tests.db.sql import change, rows, value

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC = {"harbor_enqueue_v1", "harbor_enqueue_many_v1", "harbor_job_v1", "harbor_cancel_v1"}
SEARCHED = "current_schema()::regnamespace"
DENIED = psycopg.errors.InsufficientPrivilege


@contextmanager
def connected() -> Iterator[psycopg.Connection]:
    with role("harbor_enqueuer") as name, psycopg.connect(url_of(name), autocommit=True) as connection:
        yield connection


@pytest.fixture
def service(database: None) -> Iterator[psycopg.Connection]:
    """A service's own connection."""
    with connected() as connection:
        yield connection


@pytest.fixture
def unguarded(environ: dict[str, str]) -> Iterator[psycopg.Connection]:
    """The same in a database of this test's own, which takes a guard away."""
    with connected() as connection:
        yield connection


def relations() -> list[str]:
    """Every table, view and sequence of the schema, whoever added it."""
    found = rows(f"SELECT relname FROM pg_class WHERE relnamespace = {SEARCHED} AND relkind IN ('r', 'p', 'v', 'm')")
    return sorted(name for (name,) in found)


def denied(service: psycopg.Connection, statement: str, name: str) -> bool:
    """Whether the service may not do this with a relation."""
    try:
        with service.transaction():
            service.execute(sql.SQL(statement).format(sql.Identifier(name)))
    except DENIED:
        return True
    return False


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT FROM {} LIMIT 1",
        "INSERT INTO {} DEFAULT VALUES",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "LOCK {} IN ACCESS SHARE MODE",
        "CREATE TRIGGER mine BEFORE INSERT ON {} EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ],
)
def test_no_table_of_the_schema_can_be_read_or_written(service: psycopg.Connection, statement: str) -> None:
    names = relations()

    assert {"jobs", "job_types", "job_attempts", "variants"} <= set(names)
    assert [name for name in names if not denied(service, statement, name)] == []


def test_a_right_on_a_table_would_be_noticed(unguarded: psycopg.Connection) -> None:
    change("GRANT SELECT ON jobs TO harbor_enqueuer")

    assert [name for name in relations() if not denied(unguarded, "SELECT FROM {} LIMIT 1", name)] == ["jobs"]


def test_no_column_of_a_job_can_be_changed(service: psycopg.Connection) -> None:
    ledger.make_type("sample.count", number=["integer"])
    ledger.put("sample.count", 42)

    with pytest.raises(DENIED):
        service.execute("UPDATE jobs SET priority = 0")


def test_no_number_can_be_drawn(service: psycopg.Connection) -> None:
    sequences = [n for (n,) in rows(f"SELECT relname FROM pg_class WHERE relnamespace = {SEARCHED} AND relkind = 'S'")]

    assert "jobs_id_seq" in sequences
    for name in sequences:
        with pytest.raises(DENIED):
            service.execute("SELECT nextval(%s::regclass)", (name,))


def with_the_owners_rights(service: psycopg.Connection) -> set[str]:
    """The functions of the schema that run with their owner's rights, and that the service may call."""
    found = service.execute(f"""
SELECT proname FROM pg_proc
 WHERE pronamespace = {SEARCHED} AND prosecdef AND has_function_privilege(oid, 'EXECUTE')""")
    return {name for (name,) in found}


def test_four_functions_run_with_the_owners_rights(service: psycopg.Connection) -> None:
    assert with_the_owners_rights(service) == PUBLIC


def test_a_private_function_cannot_be_called(service: psycopg.Connection) -> None:
    for call in (
        "harbor_insert_jobs('[]')",
        "harbor_insert_unless_there('{}')",
        "harbor_check_job('{}', '')",
        "harbor_check_job_options('', '', '{}')",
        "harbor_check_parameters('', '', '[]', '[]', '{}')",
        "harbor_job_seconds('', '', '', '{}')",
        "harbor_lock_job_keys('[]')",
        "harbor_refuse_job('', '', '', '')",
        "harbor_uuid7()",
    ):
        with pytest.raises(DENIED, match=f"permission denied for function {call.partition('(')[0]}"):
            service.execute(f"SELECT {call}")


def test_nothing_can_be_made_in_the_schema(service: psycopg.Connection) -> None:
    with pytest.raises(DENIED):
        service.execute("CREATE TABLE more (id int)")
    with pytest.raises(DENIED):
        service.execute("CREATE FUNCTION harbor_uuid7() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'")


# ---- with the owner's rights, on the service's own objects -----------------------------------------------------------


SHADOWS = """
CREATE TEMP TABLE job_types (task text, queue text, priority smallint, max_attempts smallint, parameters jsonb);
INSERT INTO job_types VALUES ('sample.shadow', 'bulk', 0, 9, '[]');
SET search_path = pg_temp, public;"""


def test_a_table_of_the_same_name_does_not_deceive_the_functions(service: psycopg.Connection) -> None:
    service.execute(SHADOWS)

    with pytest.raises(psycopg.Error, match=r"job sample\.shadow: task is unknown"):
        service.execute("SELECT public.harbor_enqueue_v1('sample.shadow')")


def test_without_their_search_path_it_deceives_them(unguarded: psycopg.Connection) -> None:
    change("ALTER FUNCTION harbor_enqueue_v1 RESET search_path")
    unguarded.execute(SHADOWS)

    unguarded.execute("SELECT public.harbor_enqueue_v1('sample.shadow')")

    assert value("SELECT task FROM jobs") == "sample.shadow"
