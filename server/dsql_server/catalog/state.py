"""The catalog as the query processors and the load planner see it: one immutable value per version.

A *relation id* names a table or an index for ever, in storage keys and in journals. PostgreSQL's own oids differ
from engine to engine, so they never leave one.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from dsql_server.catalog.dependencies import expression_columns
from dsql_server.encoding.keys import KeyEncoder

#: Relation ids below this one belong to the machinery (catalog log, counters, jobs).
FIRST_USER_RELATION_ID = 1000
#: The first id of the indexes of the `sys` schema.
FIRST_SYSTEM_INDEX_ID = 100
CATALOG_LOG_RELATION_ID = 1
COUNTER_RELATION_ID = 2
JOBS_RELATION_ID = 3
JOB_PARAMETERS_RELATION_ID = 4
IAM_MAPPINGS_RELATION_ID = 5

UUID_OID = 2950


def quote_identifier(name: str) -> str:
    """The name in double quotes, safe in any SQL text."""
    return '"' + name.replace('"', '""') + '"'


def quote_literal(text: str) -> str:
    """The text as a string constant, safe in any SQL text."""
    return "'" + text.replace("'", "''") + "'"


@dataclass(frozen=True)
class Column:
    """A column by attribute number (from 1). Stored rows keep the place of dropped columns as NULL."""

    number: int
    name: str
    type_oid: int  #: of the base type where the column's type is a domain
    not_null: bool = False
    generated: bool = False
    dropped: bool = False
    default: str | None = None
    modifier: int = 0  #: PostgreSQL's atttypmod: -1 for none; 0 where it isn't known, as for domains


@dataclass(frozen=True)
class Index:
    """A secondary index or the index behind a primary key or unique constraint."""

    relation_id: int
    schema: str
    name: str
    unique: bool
    primary: bool
    valid: bool
    columns: tuple[int, ...]  #: attribute numbers of the key columns; 0 stands for an expression
    key_type_oids: tuple[int, ...]
    nulls_first: tuple[bool, ...]
    expressions: tuple[str, ...] = ()  #: one per 0 in ``columns``
    predicate: str | None = None
    nulls_not_distinct: bool = False
    covering: bool = False  #: it includes columns beside those of its key

    @property
    def plain(self) -> bool:
        """Only columns and no predicate: its entries can be computed from a stored row."""
        return self.predicate is None and 0 not in self.columns

    @property
    def qualified_name(self) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"


@dataclass(frozen=True)
class ForeignKey:
    name: str
    columns: tuple[int, ...]
    referenced_id: int  #: relation id of the referenced table
    referenced_columns: tuple[int, ...]
    on_delete: str  #: PostgreSQL's letter: a no action, r restrict, c cascade, n set null, d set default
    on_update: str
    deferrable: bool = False
    deferred: bool = False
    validated: bool = True


@dataclass(frozen=True)
class Sequence:
    """A sequence. Its values come from a counter behind the commit path, whatever an engine's own says."""

    relation_id: int
    schema: str
    name: str
    start: int
    increment: int
    minimum: int
    maximum: int
    cache: int  #: values that a session takes at a time
    cycle: bool
    table_id: int | None = None  #: relation id of the table whose column owns it

    @property
    def counting(self) -> tuple[int, int, int, int, bool]:
        """What decides which value follows which."""
        return self.start, self.increment, self.minimum, self.maximum, self.cycle

    @property
    def qualified_name(self) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"


@dataclass(frozen=True)
class Table:
    """A stored table."""

    relation_id: int
    schema: str
    name: str
    columns: tuple[Column, ...]
    primary_key: Index | None = None
    indexes: tuple[Index, ...] = ()  #: without the primary key's
    foreign_keys: tuple[ForeignKey, ...] = ()
    unvalidated_checks: tuple[str, ...] = ()  #: CHECK constraints that stored rows may violate
    calls_in_checks: bool = False  #: a CHECK constraint calls a user's function, which may read what isn't loaded

    @cached_property
    def qualified_name(self) -> str:
        return f"{quote_identifier(self.schema)}.{quote_identifier(self.name)}"

    @property
    def is_system(self) -> bool:
        """Whether it belongs to the machinery: sessions only read it."""
        return self.relation_id < FIRST_USER_RELATION_ID

    @cached_property
    def mark(self) -> str:
        """An SQL comment that tells this table from one that had the same name, and columns of the same names, before.

        Statements are prepared once for each text, and keep the types that the columns had then.
        """
        return f"/* {self.relation_id}.{self.arity} */"

    @cached_property
    def arity(self) -> int:
        """Fields of a stored row, dropped columns included."""
        return len(self.columns)

    @cached_property
    def loadable(self) -> tuple[int, ...]:
        """Stored field positions that a load writes: live columns that the engine does not compute."""
        return tuple(c.number - 1 for c in self.columns if not c.dropped and not c.generated)

    @cached_property
    def passes_through(self) -> bool:
        """Stored rows of full arity are load rows, byte for byte."""
        return len(self.loadable) == self.arity

    @cached_property
    def column_list(self) -> str:
        return ", ".join(quote_identifier(self.columns[i].name) for i in self.loadable)

    @cached_property
    def image_list(self) -> str:
        """Select list that yields a stored row: every attribute in order, NULL for dropped ones."""
        return ", ".join("NULL::text" if c.dropped else quote_identifier(c.name) for c in self.columns)

    @cached_property
    def _load_sql(self) -> dict[int, str]:
        return {}

    def load_sql(self, rows: int) -> str:
        """The statement that loads some rows; its parameters are their loadable fields, row after row."""
        sql = self._load_sql.get(rows)
        if sql is None:
            width = len(self.loadable)
            tuples = [", ".join(f"${at * width + i + 1}" for i in range(width)) for at in range(rows)]
            sql = self._load_sql[rows] = (
                f"INSERT INTO {self.mark} {self.qualified_name} ({self.column_list}) OVERRIDING SYSTEM VALUE VALUES "
                + ", ".join(f"({places})" for places in tuples)
            )
        return sql

    @cached_property
    def is_covered(self) -> bool:
        """Whether a secondary index includes columns: an engine's has no room for long values of them."""
        return any(index.covering for index in self.indexes)

    @cached_property
    def is_freely_covered(self) -> bool:
        """Whether such an index isn't unique: an engine that writes can do without."""
        return any(index.covering and not index.unique for index in self.indexes)

    @cached_property
    def by_name(self) -> dict[str, Column]:
        return {c.name: c for c in self.columns if not c.dropped}

    @cached_property
    def key_encoder(self) -> KeyEncoder | None:
        """Row key from a stored row; None where rows have a hidden synthetic key."""
        if self.primary_key is None:
            return None
        fields = [(n - 1, t) for n, t in zip(self.primary_key.columns, self.primary_key.key_type_oids, strict=True)]
        return KeyEncoder(self.relation_id, fields)

    @cached_property
    def plain_indexes(self) -> tuple[tuple[Index, KeyEncoder], ...]:
        """Indexes whose entries follow from the stored row, each with its encoder."""
        found = []
        for index in self.indexes:
            if index.plain:
                fields = [(n - 1, t) for n, t in zip(index.columns, index.key_type_oids, strict=True)]
                found.append((index, KeyEncoder(index.relation_id, fields)))
        return tuple(found)

    @cached_property
    def unique_entries(self) -> tuple[tuple[Index, KeyEncoder], ...]:
        """Those of them that are unique."""
        return tuple((index, encoder) for index, encoder in self.plain_indexes if index.unique)

    def deciding_columns(self, index: Index) -> frozenset[int]:
        """The columns (attribute numbers) that decide whether a row has an entry in the index, and which."""
        numbers = {n for n in index.columns if n}
        for expression in (*index.expressions, *((index.predicate,) if index.predicate is not None else ())):
            names = expression_columns(expression)
            if names is None or not names <= self.by_name.keys():
                return frozenset(c.number for c in self.columns)
            numbers.update(self.by_name[name].number for name in names)
        return frozenset(numbers)

    @cached_property
    def opaque_unique_indexes(self) -> tuple[tuple[Index, KeyEncoder | None, frozenset[int]], ...]:
        """Unique indexes whose entries don't follow from the stored row: partial ones and those with expressions.

        Each with its deciding columns, and with the encoder of what writers of equal keys have in common; None where
        nothing is known of the keys, so that all of its writers must exclude each other.
        """
        found = []
        for index in self.indexes:
            if index.unique and not index.plain:
                encoder = None
                if 0 not in index.columns:
                    fields = [(n - 1, t) for n, t in zip(index.columns, index.key_type_oids, strict=True)]
                    encoder = KeyEncoder(index.relation_id, fields)
                found.append((index, encoder, self.deciding_columns(index)))
        return tuple(found)

    @cached_property
    def unbuilt_unique_indexes(self) -> tuple[tuple[Index, KeyEncoder], ...]:
        """Unique indexes on columns that engines don't keep: they are being built, or their build failed.

        Engines may also do without a covering one, for the length of a transaction.
        """
        return tuple(
            (index, encoder)
            for index, encoder in self.plain_indexes
            if index.unique and (index.covering or not index.valid)
        )

    @cached_property
    def key_columns(self) -> frozenset[int]:
        """Columns of unique, non-partial, non-expression indexes: changing one makes an UPDATE a key update."""
        numbers: set[int] = set(self.primary_key.columns) if self.primary_key else set()
        for index in self.indexes:
            if index.unique and index.plain:
                numbers.update(index.columns)
        return frozenset(numbers)


@dataclass(frozen=True)
class CatalogState:
    """All stored tables and sequences at one catalog version. Immutable: :meth:`apply` gives the next one."""

    version: int = 0
    tables: dict[int, Table] = field(default_factory=dict)
    next_relation_id: int = FIRST_USER_RELATION_ID
    sequences: dict[int, Sequence] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[tuple[str, str], Table]:
        return {(t.schema, t.name): t for t in self.tables.values()}

    @cached_property
    def sequence_by_name(self) -> dict[tuple[str, str], Sequence]:
        return {(s.schema, s.name): s for s in self.sequences.values()}

    @cached_property
    def referencing(self) -> dict[int, list[tuple[Table, ForeignKey]]]:
        """Foreign keys by the relation id that they reference."""
        found: dict[int, list[tuple[Table, ForeignKey]]] = {}
        for table in self.tables.values():
            for key in table.foreign_keys:
                found.setdefault(key.referenced_id, []).append((table, key))
        return found

    @cached_property
    def may_defer_checks(self) -> bool:
        """Whether some constraint may be checked as late as at COMMIT."""
        return any(key.deferrable for table in self.tables.values() for key in table.foreign_keys)

    def apply(
        self, version: int, upserts: Collection[Table | Sequence], drops: Collection[int], next_relation_id: int
    ) -> CatalogState:
        """The state after one change. ``drops`` are relation ids."""
        gone = frozenset(drops)
        tables = {k: v for k, v in self.tables.items() if k not in gone}
        sequences = {k: v for k, v in self.sequences.items() if k not in gone}
        for relation in upserts:
            if isinstance(relation, Table):
                tables[relation.relation_id] = relation
            else:
                sequences[relation.relation_id] = relation
        return CatalogState(version, tables, next_relation_id or self.next_relation_id, sequences)


def table_to_plain(table: Table) -> dict[str, Any]:
    """The table as JSON-ready values."""
    return asdict(table)


def table_from_plain(plain: dict[str, Any]) -> Table:
    """The inverse of :func:`table_to_plain`."""
    return Table(
        relation_id=plain["relation_id"],
        schema=plain["schema"],
        name=plain["name"],
        columns=tuple(Column(**c) for c in plain["columns"]),
        primary_key=_index(plain["primary_key"]) if plain["primary_key"] else None,
        indexes=tuple(_index(i) for i in plain["indexes"]),
        foreign_keys=tuple(
            ForeignKey(**{**k, "columns": tuple(k["columns"]), "referenced_columns": tuple(k["referenced_columns"])})
            for k in plain["foreign_keys"]
        ),
        unvalidated_checks=tuple(plain.get("unvalidated_checks", ())),
        calls_in_checks=plain.get("calls_in_checks", False),
    )


def _index(plain: dict[str, Any]) -> Index:
    tuples = ("columns", "key_type_oids", "nulls_first", "expressions")
    return Index(**{**plain, **{name: tuple(plain[name]) for name in tuples}})
