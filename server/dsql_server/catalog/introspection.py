"""Reading stored tables and sequences out of an engine's own catalog.

A definition touches few objects, so only those are read in full: a *listing* names every relation and says which ones
the engine's current transaction touched (their catalog rows carry its transaction id), and two listings tell what
came, went and was renamed.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from dsql_server.catalog.state import (
    IAM_MAPPINGS_RELATION_ID,
    JOBS_RELATION_ID,
    CatalogState,
    Column,
    ForeignKey,
    Index,
    Sequence,
    Table,
)
from dsql_server.catalog.sys_schema import JOBS_TABLE, MAPPINGS_TABLE, STORED_SCHEMA

#: Stored tables behind the ``sys`` schema have fixed relation ids.
SYSTEM_TABLES = {
    (STORED_SCHEMA, JOBS_TABLE): JOBS_RELATION_ID,
    (STORED_SCHEMA, MAPPINGS_TABLE): IAM_MAPPINGS_RELATION_ID,
}

_OWN = "pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.xid"

#: Every table (r), index (i) and sequence (S), the foreign keys, and what the current transaction touched, as JSON.
LISTING_SQL = f"""
SELECT pg_catalog.json_build_object(
  'relations', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(
      c.oid::int8, c.relkind, n.nspname, c.relname, i.indrelid::int8))
    FROM (pg_catalog.pg_class c LEFT JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid)
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'i', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')),
  'foreign_keys', (SELECT pg_catalog.json_agg(pg_catalog.json_build_array(oid::int8, conrelid::int8))
    FROM pg_catalog.pg_constraint WHERE contype = 'f'),
  'touched', CASE WHEN {_OWN} IS NOT NULL THEN (SELECT pg_catalog.json_agg(DISTINCT touched::int8) FROM (
    SELECT oid FROM pg_catalog.pg_class WHERE xmin = {_OWN}
    UNION ALL SELECT attrelid FROM pg_catalog.pg_attribute WHERE xmin = {_OWN}
    UNION ALL SELECT adrelid FROM pg_catalog.pg_attrdef WHERE xmin = {_OWN}
    UNION ALL SELECT indrelid FROM pg_catalog.pg_index WHERE xmin = {_OWN}
    UNION ALL SELECT conrelid FROM pg_catalog.pg_constraint WHERE xmin = {_OWN}
    UNION ALL SELECT seqrelid FROM pg_catalog.pg_sequence WHERE xmin = {_OWN}
  ) AS own(touched)) END)::text
"""

_TABLES_SQL = """
WITH RECURSIVE base_types(oid, base) AS (
  SELECT oid, oid FROM pg_catalog.pg_type WHERE typtype <> 'd'
  UNION ALL
  SELECT d.oid, b.base FROM pg_catalog.pg_type d JOIN base_types b ON b.oid = d.typbasetype WHERE d.typtype = 'd'
), stored AS (
  SELECT c.oid, n.nspname, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relkind = 'r' AND {condition}
)
SELECT coalesce(json_agg(json_build_object(
  'oid', s.oid::int8, 'schema', s.nspname, 'name', s.relname,
  'columns', (SELECT json_agg(json_build_object(
      'number', a.attnum, 'name', a.attname, 'type_oid', coalesce(b.base, 25)::int8, 'not_null', a.attnotnull,
      'modifier', CASE WHEN b.base = a.atttypid THEN a.atttypmod ELSE 0 END,
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
    FROM pg_catalog.pg_constraint k WHERE k.conrelid = s.oid AND k.contype = 'f'),
  'unvalidated_checks', (SELECT json_agg(k.conname ORDER BY k.oid)
    FROM pg_catalog.pg_constraint k WHERE k.conrelid = s.oid AND k.contype = 'c' AND NOT k.convalidated),
  'calls_in_checks', EXISTS (SELECT FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_depend d ON d.objid = k.oid
    AND d.classid = 'pg_catalog.pg_constraint'::pg_catalog.regclass
    AND d.refclassid = 'pg_catalog.pg_proc'::pg_catalog.regclass WHERE k.conrelid = s.oid AND k.contype = 'c')
) ORDER BY s.oid), '[]'::json)::text FROM stored s
"""

_SYSTEM_NAMES = ", ".join(f"('{schema}', '{name}')" for schema, name in SYSTEM_TABLES)

#: Every stored table of the database.
ALL_TABLES_SQL = _TABLES_SQL.format(
    condition="(n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') "
    f"OR (n.nspname, c.relname) IN ({_SYSTEM_NAMES}))"
)

_SEQUENCES_SQL = """
SELECT coalesce(json_agg(json_build_object(
  'oid', c.oid::int8, 'schema', n.nspname, 'name', c.relname, 'start', s.seqstart, 'increment', s.seqincrement,
  'minimum', s.seqmin, 'maximum', s.seqmax, 'cache', s.seqcache, 'cycle', s.seqcycle, 'owner', (
    SELECT d.refobjid::int8 FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
    AND d.objid = c.oid AND d.refclassid = 'pg_catalog.pg_class'::regclass AND d.refobjsubid > 0
    AND d.deptype IN ('a', 'i') LIMIT 1)) ORDER BY c.oid), '[]'::json)::text
FROM pg_catalog.pg_sequence s JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN ({oids})
"""

_INDEX_OPTION_NULLS_FIRST = 2


@dataclass(frozen=True)
class Listing:
    """The names of all relations by engine oid, and the oids that the engine's transaction touched."""

    tables: dict[int, tuple[str, str]] = field(default_factory=dict)
    sequences: dict[int, tuple[str, str]] = field(default_factory=dict)
    indexes: dict[int, tuple[str, str, int]] = field(default_factory=dict)  #: schema, name, oid of the table
    foreign_keys: dict[int, int] = field(default_factory=dict)  #: oid of the referencing table
    touched: frozenset[int] = frozenset()

    @classmethod
    def read(cls, text: str) -> Listing:
        """From the answer of :data:`LISTING_SQL`."""
        raw = json.loads(text)
        listing = cls(touched=frozenset(raw["touched"] or ()), foreign_keys=dict(raw["foreign_keys"] or ()))
        for oid, kind, schema, name, table in raw["relations"] or ():
            if kind == "r":
                listing.tables[oid] = (schema, name)
            elif kind == "S":
                listing.sequences[oid] = (schema, name)
            else:
                listing.indexes[oid] = (schema, name, table)
        return listing

    def tables_changed_since(self, before: Listing) -> set[int]:
        """Oids of the tables of this listing that differ from before in any way."""
        changed = {oid for oid, name in self.tables.items() if before.tables.get(oid) != name}
        for oid, entry in {*before.indexes.items(), *self.indexes.items()}:
            if self.indexes.get(oid) != before.indexes.get(oid) or oid in self.touched:
                changed.add(entry[2])
        for _, table in before.foreign_keys.items() ^ self.foreign_keys.items():
            changed.add(table)
        return (changed | self.touched) & self.tables.keys()

    def sequences_changed_since(self, before: Listing) -> set[int]:
        """Oids of the sequences of this listing that are new, renamed or touched."""
        changed = {oid for oid, name in self.sequences.items() if before.sequences.get(oid) != name}
        return changed | (self.touched & self.sequences.keys())


def tables_sql(oids: Collection[int]) -> str:
    """The query for the tables with these oids, described in full. For :func:`read_document`."""
    return _TABLES_SQL.format(condition=f"c.oid IN ({_oid_list(oids)})")


def sequences_sql(oids: Collection[int]) -> str:
    """The query for the sequences with these oids. For :func:`read_document`."""
    return _SEQUENCES_SQL.format(oids=_oid_list(oids))


def _oid_list(oids: Collection[int]) -> str:
    return ", ".join(map(str, sorted(oids))) or "0"


def read_document(text: str) -> list[dict[str, Any]]:
    """The objects in the answer of a query of this module."""
    document: list[dict[str, Any]] = json.loads(text)
    return document


def oid_map(before: Listing, state: CatalogState) -> dict[int, int]:
    """Engine oid → relation id for everything that ``state`` knows under the name that it had before."""
    ids: dict[int, int] = {}
    known_indexes: dict[int, dict[str, int]] = {}
    for oid, name in before.tables.items():
        table = state.by_name.get(name)
        if table is not None:
            ids[oid] = table.relation_id
            keys = (table.primary_key, *table.indexes) if table.primary_key is not None else table.indexes
            known_indexes[oid] = {i.name: i.relation_id for i in keys}
    for oid, (_, index_name, table_oid) in before.indexes.items():
        known = known_indexes.get(table_oid, {}).get(index_name)
        if known is not None:
            ids[oid] = known
    for oid, name in before.sequences.items():
        sequence = state.sequence_by_name.get(name)
        if sequence is not None:
            ids[oid] = sequence.relation_id
    return ids


def build_tables(document: list[dict[str, Any]], ids: dict[int, int], next_relation_id: int) -> tuple[list[Table], int]:
    """Tables of ``document``; relations that ``ids`` doesn't know get new ids. Returns them and the next free id."""
    for raw in document:
        for relation in (raw, *(raw["indexes"] or ())):
            if relation["oid"] not in ids:
                fixed = SYSTEM_TABLES.get((raw["schema"], raw["name"])) if relation is raw else None
                ids[relation["oid"]] = fixed or next_relation_id
                next_relation_id += 0 if fixed else 1
    return [_table(raw, ids) for raw in document], next_relation_id


def build_sequences(
    document: list[dict[str, Any]], ids: dict[int, int], next_relation_id: int
) -> tuple[list[Sequence], int]:
    """Sequences of ``document``, and the next free relation id. Their tables must be in ``ids`` already."""
    for raw in document:
        if raw["oid"] not in ids:
            ids[raw["oid"]] = next_relation_id
            next_relation_id += 1
    return [_sequence(raw, ids) for raw in document], next_relation_id


def _sequence(raw: dict[str, Any], ids: dict[int, int]) -> Sequence:
    owner = raw["owner"]
    fields = {name: value for name, value in raw.items() if name not in ("oid", "owner")}
    return Sequence(relation_id=ids[raw["oid"]], table_id=ids.get(owner) if owner is not None else None, **fields)


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
        unvalidated_checks=tuple(raw["unvalidated_checks"] or ()),
        calls_in_checks=raw["calls_in_checks"],
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
        covering=len(raw["columns"]) > count,
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
