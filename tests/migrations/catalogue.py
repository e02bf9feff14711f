"""What PostgreSQL itself says a schema is: the same text for the same thing, whoever made it."""

from __future__ import annotations

from tests.db.sql import rows

_MINE = "n.nspname = 'public' AND c.relname <> 'alembic_version'"

_QUERIES = {
    "relation": f"""
        SELECT c.relname, concat_ws(' ', c.relkind::text, c.relpersistence::text, c.reloptions::text)
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_MINE} AND c.relkind <> 'i'""",
    "column": f"""
        SELECT c.relname || '.' || a.attname,
               concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'NOT NULL' END,
                         'DEFAULT ' || pg_get_expr(d.adbin, d.adrelid), 'IDENTITY ' || nullif(a.attidentity::text, ''),
                         'GENERATED ' || nullif(a.attgenerated::text, ''),
                         'COLLATION ' || nullif(a.attcollation, 0), a.attstorage::text)
          FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
         WHERE {_MINE} AND c.relkind IN ('r', 'p', 'v', 'm') AND a.attnum > 0 AND NOT a.attisdropped""",
    "constraint": f"""
        SELECT c.relname || '.' || k.conname,
               concat_ws(' ', pg_get_constraintdef(k.oid), CASE WHEN NOT k.convalidated THEN 'NOT VALID' END)
          FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {_MINE}""",
    "index": f"""
        SELECT c.relname || '.' || x.relname,
               concat_ws(' ', pg_get_indexdef(i.indexrelid), x.reloptions::text,
                         CASE WHEN NOT i.indisvalid THEN 'INVALID' END)
          FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid JOIN pg_class x ON x.oid = i.indexrelid
          JOIN pg_namespace n ON n.oid = c.relnamespace WHERE {_MINE}""",
    "trigger": f"""
        SELECT c.relname || '.' || t.tgname, pg_get_triggerdef(t.oid)
          FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE {_MINE} AND NOT t.tgisinternal""",
    "function": """
        SELECT p.oid::regprocedure::text, pg_get_functiondef(p.oid)
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'""",
    "type": """
        SELECT t.typname, t.typtype::text
          FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
         WHERE n.nspname = 'public' AND t.typtype IN ('e', 'd', 'r')""",
}


def catalogue() -> dict[str, str]:
    """Everything in the schema by its kind and name, Alembic's own table aside."""
    return {f"{kind} {name}": definition for kind, query in _QUERIES.items() for name, definition in rows(query)}


def only(kinds: set[str], of: dict[str, str]) -> dict[str, str]:
    """The entries of these kinds."""
    return {name: definition for name, definition in of.items() if name.split(" ")[0] in kinds}


_UNINDEXED = """
SELECT k.conrelid::regclass || '(' || string_agg(a.attname, ', ' ORDER BY a.attnum) || ')'
  FROM pg_constraint k
  JOIN pg_namespace n ON n.oid = k.connamespace AND n.nspname = 'public'
  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey)
 WHERE k.contype = 'f' AND NOT EXISTS (
   SELECT FROM pg_index i
    WHERE i.indrelid = k.conrelid AND i.indisvalid
      -- Its leading columns are those of the key, in any order.
      AND (SELECT array_agg(c ORDER BY c) FROM unnest((i.indkey::int2[])[0:cardinality(k.conkey) - 1]) c)
          = (SELECT array_agg(c ORDER BY c) FROM unnest(k.conkey) c)
      -- A row without the key refers to nothing, so an index may leave it out; it may leave out nothing else.
      AND (i.indpred IS NULL
           OR cardinality(k.conkey) = 1 AND pg_get_expr(i.indpred, i.indrelid) = format('(%I IS NOT NULL)', a.attname)))
 GROUP BY k.oid, k.conrelid ORDER BY 1
"""


def unindexed_foreign_keys() -> list[str]:
    """Foreign keys without an index: deleting or updating what they refer to would read the whole table."""
    return [name for (name,) in rows(_UNINDEXED)]
