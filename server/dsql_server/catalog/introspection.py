"""Reading the stored tables out of an engine's own catalog."""

from __future__ import annotations

import json
from typing import Any

from dsql_server.catalog.state import (
    JOBS_RELATION_ID,
    CatalogState,
    Column,
    ForeignKey,
    Index,
    Table,
)

#: Stored tables of the ``sys`` schema have fixed relation ids.
SYSTEM_TABLES = {("sys", "jobs"): JOBS_RELATION_ID}

#: One JSON document with every stored table of the database, oids included.
INTROSPECTION_SQL = """
WITH RECURSIVE base_types(oid, base) AS (
  SELECT oid, oid FROM pg_catalog.pg_type WHERE typtype <> 'd'
  UNION ALL
  SELECT d.oid, b.base FROM pg_catalog.pg_type d JOIN base_types b ON b.oid = d.typbasetype WHERE d.typtype = 'd'
), stored AS (
  SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
)
SELECT coalesce(json_agg(json_build_object(
  'oid', s.oid::int8, 'schema', s.nspname, 'name', s.relname,
  'columns', (SELECT json_agg(json_build_object(
      'number', a.attnum, 'name', a.attname, 'type_oid', coalesce(b.base, 25)::int8, 'not_null', a.attnotnull,
      'generated', a.attgenerated <> '', 'dropped', a.attisdropped,
      'default', CASE WHEN a.attgenerated = '' THEN pg_catalog.pg_get_expr(d.adbin, d.adrelid) END) ORDER BY a.attnum)
    FROM pg_catalog.pg_attribute a LEFT JOIN base_types b ON b.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = s.oid AND a.attnum > 0),
  'indexes', (SELECT json_agg(json_build_object(
      'oid', i.indexrelid::int8, 'schema', n.nspname, 'name', ic.relname, 'unique', i.indisunique,
      'primary', i.indisprimary, 'valid', i.indisvalid, 'columns', i.indkey::int2[], 'key_count', i.indnkeyatts,
      'key_types', (SELECT json_agg(b.base::int8 ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
        JOIN base_types b ON b.oid = a.atttypid WHERE a.attrelid = i.indexrelid AND a.attnum <= i.indnkeyatts),
      'options', i.indoption::int2[],
      'definitions', (SELECT json_agg(pg_catalog.pg_get_indexdef(i.indexrelid, k, false) ORDER BY k)
        FROM pg_catalog.generate_series(1, i.indnkeyatts) k WHERE i.indkey[k - 1] = 0),
      'predicate', pg_catalog.pg_get_expr(i.indpred, i.indrelid),
      'nulls_not_distinct', i.indnullsnotdistinct) ORDER BY i.indexrelid)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = ic.relnamespace WHERE i.indrelid = s.oid),
  'foreign_keys', (SELECT json_agg(json_build_object(
      'name', k.conname, 'columns', k.conkey, 'referenced_oid', k.confrelid::int8, 'referenced_columns', k.confkey,
      'on_delete', k.confdeltype, 'on_update', k.confupdtype, 'deferrable', k.condeferrable, 'deferred', k.condeferred,
      'validated', k.convalidated) ORDER BY k.oid)
    FROM pg_catalog.pg_constraint k WHERE k.conrelid = s.oid AND k.contype = 'f')
) ORDER BY s.oid), '[]'::json)::text FROM stored s
"""

_INDEX_OPTION_NULLS_FIRST = 2


def read_document(text: str) -> list[dict[str, Any]]:
    """The tables in the answer of :data:`INTROSPECTION_SQL`."""
    document: list[dict[str, Any]] = json.loads(text)
    return document


def oid_map(document: list[dict[str, Any]], state: CatalogState) -> dict[int, int]:
    """Engine oid → relation id for every table and index that ``state`` knows under its current name."""
    ids: dict[int, int] = {}
    for raw in document:
        name = (raw["schema"], raw["name"])
        table = state.by_name.get(name)
        if table is None:
            continue
        ids[raw["oid"]] = table.relation_id
        known = {i.name: i.relation_id for i in (*table.indexes, *([table.primary_key] if table.primary_key else []))}
        for index in raw["indexes"] or ():
            if index["name"] in known:
                ids[index["oid"]] = known[index["name"]]
    return ids


def build_tables(
    document: list[dict[str, Any]], ids: dict[int, int], next_relation_id: int
) -> tuple[list[Table], int]:
    """Tables of ``document``; relations that ``ids`` doesn't know get new ids. Returns them and the next free id."""
    for raw in document:
        for relation in (raw, *(raw["indexes"] or ())):
            if relation["oid"] not in ids:
                fixed = SYSTEM_TABLES.get((raw["schema"], raw["name"])) if relation is raw else None
                ids[relation["oid"]] = fixed or next_relation_id
                next_relation_id += 0 if fixed else 1
    return [_table(raw, ids) for raw in document], next_relation_id


def _table(raw: dict[str, Any], ids: dict[int, int]) -> Table:
    indexes = [_index(i, ids) for i in raw["indexes"] or ()]
    return Table(
        relation_id=ids[raw["oid"]],
        schema=raw["schema"],
        name=raw["name"],
        columns=tuple(Column(**c) for c in raw["columns"] or ()),
        primary_key=next((i for i in indexes if i.primary), None),
        indexes=tuple(i for i in indexes if not i.primary),
        foreign_keys=tuple(_foreign_key(k, ids) for k in raw["foreign_keys"] or ()),
    )


def _index(raw: dict[str, Any], ids: dict[int, int]) -> Index:
    count = raw["key_count"]
    return Index(
        relation_id=ids[raw["oid"]],
        schema=raw["schema"],
        name=raw["name"],
        unique=raw["unique"],
        primary=raw["primary"],
        valid=raw["valid"],
        columns=tuple(raw["columns"][:count]),
        key_type_oids=tuple(raw["key_types"]),
        nulls_first=tuple(bool(o & _INDEX_OPTION_NULLS_FIRST) for o in raw["options"][:count]),
        expressions=tuple(raw["definitions"] or ()),
        predicate=raw["predicate"],
        nulls_not_distinct=raw["nulls_not_distinct"],
    )


def _foreign_key(raw: dict[str, Any], ids: dict[int, int]) -> ForeignKey:
    return ForeignKey(
        name=raw["name"],
        columns=tuple(raw["columns"]),
        referenced_id=ids[raw["referenced_oid"]],
        referenced_columns=tuple(raw["referenced_columns"]),
        on_delete=raw["on_delete"],
        on_update=raw["on_update"],
        deferrable=raw["deferrable"],
        deferred=raw["deferred"],
        validated=raw["validated"],
    )
