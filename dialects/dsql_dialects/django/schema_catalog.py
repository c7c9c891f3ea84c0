"""One table as the catalog has it: what has to be made again when a column or the table is replaced."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from dsql_dialects.django.schema_names import NOT_NULL_SUFFIX

#: PostgreSQL's one-letter constraint types.
CHECK, FOREIGN_KEY, PRIMARY_KEY, UNIQUE = "c", "f", "p", "u"

_NOT_NULL_CHECK = re.compile(r'^CHECK \(\(("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*) IS NOT NULL\)\)$')

_INDEX_DEFINITION = re.compile(
    r"^CREATE (?P<unique>UNIQUE )?INDEX (?P<name>\"(?:[^\"]|\"\")+\"|\S+) ON (?:ONLY )?"
    r"(?P<table>(?:\"(?:[^\"]|\"\")+\"|[^\s.]+)(?:\.(?:\"(?:[^\"]|\"\")+\"|\S+))?) USING \S+ (?P<rest>.*)$",
    re.DOTALL,
)

Fetch = Callable[[str, tuple[Any, ...]], list[tuple[Any, ...]]]


@dataclass(frozen=True)
class Column:
    """A column; ``type`` is SQL, ``default`` and ``generated`` are expressions in SQL."""

    name: str
    type: str
    not_null: bool = False
    default: str | None = None
    generated: str | None = None
    identity: str | None = None  #: ALWAYS or BY DEFAULT
    identity_options: str = ""  #: as in parentheses after AS IDENTITY
    comment: str | None = None


@dataclass(frozen=True)
class Constraint:
    """A constraint; ``definition`` is what follows CONSTRAINT name, without NOT VALID."""

    name: str
    type: str
    columns: tuple[str, ...]
    definition: str
    validated: bool = True
    table: str = ""  #: quoted, of the table that has it
    referenced_table: str = ""  #: quoted, of a foreign key
    referenced_columns: tuple[str, ...] = ()

    @property
    def not_null_column(self) -> str | None:
        """The column if this is a check that stands for NOT NULL on a column that was added later."""
        ours = self.type == CHECK and self.name.endswith(NOT_NULL_SUFFIX) and _NOT_NULL_CHECK.match(self.definition)
        return self.columns[0] if ours else None


@dataclass(frozen=True)
class Index:
    """An index that belongs to no primary key."""

    name: str
    columns: tuple[str, ...]  #: all that it needs: keys, in expressions, included, in the predicate
    definition: str  #: pg_get_indexdef
    unique: bool = False
    constraint: str | None = None  #: the UNIQUE constraint that it implements
    key_columns: tuple[str | None, ...] = ()  #: None for an expression
    partial: bool = False

    def create_sql(self, name: str, table: str) -> str:
        """CREATE INDEX ASYNC for an equal index.

        :param name: quoted.
        :param table: quoted.
        :raises ValueError: for a definition that isn't PostgreSQL's.
        """
        match = _INDEX_DEFINITION.match(self.definition)
        if match is None:
            raise ValueError(f"the definition of index {self.name} can't be read: {self.definition}")
        return f"CREATE {match['unique'] or ''}INDEX ASYNC {name} ON {table} {match['rest']}"


@dataclass(frozen=True)
class Table:
    """A table with everything that hangs on it."""

    name: str  #: quoted, as Django names it
    columns: tuple[Column, ...]
    constraints: tuple[Constraint, ...] = ()
    incoming: tuple[Constraint, ...] = ()  #: foreign keys of other tables to this one
    indexes: tuple[Index, ...] = ()
    views: dict[str, tuple[str, ...]] = field(default_factory=dict)  #: by column, "" for the table itself
    grants: tuple[str, ...] = ()  #: GRANT statements
    column_grants: tuple[tuple[str, str], ...] = ()  #: columns, each with a GRANT statement
    statistics: tuple[tuple[tuple[str, ...], str], ...] = ()  #: columns, with the CREATE STATISTICS statement
    comment: str | None = None
    exists: bool = True

    def column(self, name: str) -> Column | None:
        """The column of that name."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def primary_key(self) -> Constraint | None:
        """The PRIMARY KEY constraint."""
        return next((constraint for constraint in self.constraints if constraint.type == PRIMARY_KEY), None)

    def not_null_checks(self, column: str) -> list[Constraint]:
        """Checks that stand for NOT NULL."""
        return [constraint for constraint in self.constraints if constraint.not_null_column == column]

    def is_not_null(self, column: str) -> bool:
        """Whether a column can't hold NULL, be it by NOT NULL or by a check."""
        found = self.column(column)
        return bool(found and found.not_null) or bool(self.not_null_checks(column))

    def of_column(self, column: str, *types: str) -> list[Constraint]:
        """Constraints of those types over that column and no other; checks that stand for NOT NULL aren't counted."""
        return [
            constraint
            for constraint in self.constraints
            if constraint.type in types and constraint.columns == (column,) and not constraint.not_null_column
        ]

    def renamed(self, old: str, new: str) -> Table:
        """The table after RENAME COLUMN, as far as names of columns go."""
        return replace(self, columns=tuple(replace(c, name=new) if c.name == old else c for c in self.columns))


_COLUMNS = """
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
           CASE WHEN a.attgenerated = '' THEN pg_get_expr(d.adbin, d.adrelid) END,
           CASE WHEN a.attgenerated <> '' THEN pg_get_expr(d.adbin, d.adrelid) END,
           CASE a.attidentity WHEN 'a' THEN 'ALWAYS' WHEN 'd' THEN 'BY DEFAULT' END,
           col_description(a.attrelid, a.attnum)
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""

_IDENTITIES = """
    SELECT a.attname, s.seqincrement, s.seqmin, s.seqmax, s.seqcache, s.seqcycle
    FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid
         JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
    WHERE d.refobjid = %s AND d.deptype = 'i' AND a.attidentity <> ''"""

_CONSTRAINTS = """
    SELECT c.conname, c.contype,
           ARRAY(SELECT a.attname FROM unnest(c.conkey) WITH ORDINALITY k (num, pos)
                 JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num ORDER BY k.pos),
           pg_get_constraintdef(c.oid), c.convalidated, c.conrelid::regclass::text,
           CASE WHEN c.confrelid <> 0 THEN c.confrelid::regclass::text ELSE '' END,
           ARRAY(SELECT a.attname FROM unnest(c.confkey) WITH ORDINALITY k (num, pos)
                 JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.num ORDER BY k.pos),
           c.conrelid = %s
    FROM pg_constraint c
    WHERE (c.conrelid = %s OR c.confrelid = %s) AND c.contype IN ('c', 'f', 'p', 'u') ORDER BY c.oid"""

_INDEXES = """
    SELECT i.relname, pg_get_indexdef(x.indexrelid), x.indisunique, c.conname, x.indpred IS NOT NULL,
           ARRAY(SELECT a.attname FROM unnest(x.indkey::int2[]) WITH ORDINALITY k (num, pos)
                 LEFT JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.num
                 WHERE k.pos <= x.indnkeyatts ORDER BY k.pos),
           ARRAY(SELECT DISTINCT a.attname FROM pg_attribute a
                 WHERE a.attrelid = x.indrelid AND a.attnum > 0
                   AND (a.attnum = ANY (x.indkey::int2[]) OR EXISTS (
                        SELECT 1 FROM pg_depend p WHERE p.objid = x.indexrelid
                        AND p.refobjid = x.indrelid AND p.refobjsubid = a.attnum)))
    FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
         LEFT JOIN pg_constraint c ON c.conindid = x.indexrelid AND c.contype = 'u'
    WHERE x.indrelid = %s AND NOT x.indisprimary ORDER BY i.relname"""

_VIEWS = """
    SELECT DISTINCT coalesce(a.attname, ''), r.ev_class::regclass::text
    FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid AND d.classid = 'pg_rewrite'::regclass
         LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND d.refobjsubid > 0
    WHERE d.refobjid = %s AND r.ev_class <> d.refobjid"""

_GRANTS = """
    SELECT acl.privilege_type, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END, acl.is_grantable
    FROM pg_class t CROSS JOIN LATERAL aclexplode(t.relacl) acl LEFT JOIN pg_roles r ON r.oid = acl.grantee
    WHERE t.oid = %s AND acl.grantee <> t.relowner ORDER BY 2, 1"""


_COLUMN_GRANTS = """
    SELECT a.attname, acl.privilege_type, CASE acl.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(r.rolname) END,
           acl.is_grantable, quote_ident(a.attname)
    FROM pg_attribute a CROSS JOIN LATERAL aclexplode(a.attacl) acl LEFT JOIN pg_roles r ON r.oid = acl.grantee
    WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum, 3, 2"""

_STATISTICS = """
    SELECT ARRAY(SELECT a.attname FROM pg_attribute a WHERE a.attrelid = s.stxrelid AND a.attnum > 0 AND EXISTS (
               SELECT 1 FROM pg_depend p WHERE p.objid = s.oid AND p.refobjid = s.stxrelid
               AND p.refobjsubid = a.attnum)),
           pg_get_statisticsobjdef(s.oid)
    FROM pg_statistic_ext s WHERE s.stxrelid = %s ORDER BY s.oid"""


def read_table(fetch: Fetch, name: str) -> Table:
    """What the catalog says of a table; one without columns, and ``exists`` False, if there is none.

    :param fetch: runs a query and returns its rows.
    :param name: quoted.
    """
    found = fetch(
        "SELECT to_regclass(%s)::oid::bigint, obj_description(to_regclass(%s)::oid, 'pg_class')", (name, name)
    )
    oid, comment = found[0]
    if oid is None:
        return Table(name, (), exists=False)
    own, incoming = _constraints(fetch, oid)
    views: dict[str, tuple[str, ...]] = {}
    for column, view in fetch(_VIEWS, (oid,)):
        views[column] = (*views.get(column, ()), view)
    return Table(
        name,
        _columns(fetch, oid),
        own,
        incoming,
        _indexes(fetch, oid),
        views,
        tuple(
            f"GRANT {privilege} ON TABLE {name} TO {grantee}{' WITH GRANT OPTION' if grantable else ''}"
            for privilege, grantee, grantable in fetch(_GRANTS, (oid,))
        ),
        tuple(
            (
                column,
                f"GRANT {privilege} ({quoted}) ON TABLE {name} TO {grantee}"
                + (" WITH GRANT OPTION" if grantable else ""),
            )
            for column, privilege, grantee, grantable, quoted in fetch(_COLUMN_GRANTS, (oid,))
        ),
        tuple((tuple(columns), sql) for columns, sql in fetch(_STATISTICS, (oid,))),
        comment,
    )


def _columns(fetch: Fetch, oid: int) -> tuple[Column, ...]:
    rows = fetch(_COLUMNS, (oid,))
    options = {}
    if any(row[5] for row in rows):
        for name, increment, low, high, cache, cycle in fetch(_IDENTITIES, (oid,)):
            options[name] = f"INCREMENT BY {increment} MINVALUE {low} MAXVALUE {high} CACHE {cache}" + (
                " CYCLE" if cycle else ""
            )
    return tuple(
        Column(name, type_, not_null, default, generated, identity, options.get(name, ""), comment)
        for name, type_, not_null, default, generated, identity, comment in rows
    )


def _constraints(fetch: Fetch, oid: int) -> tuple[tuple[Constraint, ...], tuple[Constraint, ...]]:
    own: list[Constraint] = []
    incoming: list[Constraint] = []
    for name, type_, columns, definition, validated, table, referenced, referenced_columns, mine in fetch(
        _CONSTRAINTS, (oid, oid, oid)
    ):
        constraint = Constraint(
            name,
            type_.decode() if isinstance(type_, bytes) else type_,
            tuple(columns),
            definition.removesuffix(" NOT VALID"),
            validated,
            table,
            referenced,
            tuple(referenced_columns),
        )
        (own if mine else incoming).append(constraint)
    return tuple(own), tuple(incoming)


def _indexes(fetch: Fetch, oid: int) -> tuple[Index, ...]:
    return tuple(
        Index(name, tuple(columns), definition, unique, constraint, tuple(keys), partial)
        for name, definition, unique, constraint, partial, keys, columns in fetch(_INDEXES, (oid,))
    )
