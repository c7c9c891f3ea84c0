"""Random tables, indexes and views, as DDL and as the description that statements are generated from."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from random_values import (
    BIGINT,
    BYTEA,
    DOUBLE,
    INT,
    INTERVAL,
    JSONB,
    KEY_KINDS,
    KINDS,
    NUMERIC,
    REAL,
    SMALLINT,
    TEXT,
    VARCHAR,
    Kind,
    LiteralStyle,
    literal,
    random_text,
)

#: Values that are equal may look different, so which one of them a query shows is PostgreSQL's choice.
UNSTABLE = frozenset({DOUBLE, REAL, INTERVAL})
_WHOLE_NUMBERS = (INT, BIGINT, SMALLINT)
FOREIGN_KEY_ACTIONS = ("NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT")


@dataclass(frozen=True)
class Column:
    name: str
    kind: Kind
    nullable: bool = True
    generated: bool = False

    @property
    def stable(self) -> bool:
        return self.kind not in UNSTABLE


@dataclass
class Relation:
    """A table or a view that statements may name."""

    name: str
    columns: list[Column]
    primary_key: list[Column] = field(default_factory=list)
    #: what may stand behind ON CONFLICT, with the columns that make it up
    arbiters: list[tuple[str, list[Column]]] = field(default_factory=list)
    is_view: bool = False
    has_references: bool = False

    @property
    def key_columns(self) -> set[str]:
        """Columns of any unique index."""
        return {c.name for _, columns in self.arbiters for c in columns} | {c.name for c in self.primary_key}

    @property
    def has_computed_key(self) -> bool:
        """Whether a key is only known once a row is written; of several errors, another may then come first."""
        return any(c.generated and c.name in self.key_columns for c in self.columns)

    @property
    def writable(self) -> list[Column]:
        return [c for c in self.columns if not c.generated]


@dataclass
class Schema:
    tables: list[Relation] = field(default_factory=list)
    views: list[Relation] = field(default_factory=list)
    before: list[str] = field(default_factory=list)  #: DDL to run before there is data
    after: list[str] = field(default_factory=list)  #: DDL to run on tables with rows
    drops: list[str] = field(default_factory=list)


class SchemaGenerator:
    """Makes one schema. Names start with ``prefix``, so that schemas needn't be dropped before the next."""

    def __init__(self, rng: random.Random, prefix: str, foreign_keys: bool = False) -> None:
        self._rng = rng
        self._prefix = prefix
        self._foreign_keys = foreign_keys
        self._schema = Schema()
        # Few types, so that most columns can be compared with others, joined, and taken for one another.
        self._key_kinds = rng.choices(KEY_KINDS, k=2)
        self._kinds = [*rng.choices(KINDS, k=2), *self._key_kinds]

    def schema(self) -> Schema:
        """Tables, indexes and views."""
        for number in range(self._rng.choice((1, 2, 2, 3))):
            self._table(f"{self._prefix}t{number}")
        for table in self._schema.tables:
            self._indexes(table)
        for number in range(self._rng.choice((0, 1, 1, 2))):
            self._view(f"{self._prefix}v{number}")
        names = [t.name for t in self._schema.tables]
        self._schema.drops = [f"DROP TABLE {name} CASCADE" for name in reversed(names)]
        return self._schema

    def _table(self, name: str) -> None:
        rng = self._rng
        key_size = rng.choice((0, 1, 1, 1, 2))
        columns = [
            Column(f"c{i}", self._kind(i < key_size), nullable=i >= key_size and rng.random() < 0.75)
            for i in range(key_size + rng.randint(1, 4))
        ]
        rng.shuffle(columns)
        table = Relation(name, columns, [c for c in columns if c.name in {f"c{i}" for i in range(key_size)}])
        definitions = [f"{c.name} {c.kind.sql}{self._column_clauses(c)}" for c in columns]
        if table.primary_key:
            if rng.random() < 0.5:
                table.primary_key.reverse()
            names = ", ".join(c.name for c in table.primary_key)
            definitions.append(f"PRIMARY KEY ({names})")
            table.arbiters.append((f"({names})", table.primary_key))
        self._generated_column(table, definitions)
        if rng.random() < 0.2:
            self._unique_constraint(table, definitions)
        if self._foreign_keys:
            self._references(table, definitions)
        self._schema.tables.append(table)
        self._schema.before.append(f"CREATE TABLE {name} ({', '.join(definitions)})")

    def _kind(self, is_key: bool) -> Kind:
        if self._rng.random() < 0.15:
            return self._rng.choice(KEY_KINDS if is_key else KINDS)
        return self._rng.choice(self._key_kinds if is_key else self._kinds)

    def _column_clauses(self, column: Column) -> str:
        rng, clauses = self._rng, ""
        if not column.nullable and rng.random() < 0.8:
            clauses += " NOT NULL"
        if rng.random() < 0.15:
            clauses += f" DEFAULT {literal(column.kind, random_text(rng, column.kind), LiteralStyle.random(rng))}"
        if rng.random() < 0.1 and column.kind in _WHOLE_NUMBERS:
            clauses += f" CHECK ({column.name} > {rng.choice((-2, -1, -200))})"
        return clauses

    def _generated_column(self, table: Relation, definitions: list[str]) -> None:
        rng = self._rng
        sources = [c for c in table.columns if c.kind in (INT, SMALLINT, TEXT, VARCHAR)]
        if not sources or rng.random() > 0.15:
            return
        source = rng.choice(sources)
        kind = TEXT if source.kind in (TEXT, VARCHAR) else BIGINT
        expression = f"lower({source.name})" if kind is TEXT else f"({source.name}::bigint * 2)"
        definitions.append(f"g {kind.sql} GENERATED ALWAYS AS ({expression}) STORED")
        table.columns.append(Column("g", kind, generated=True))

    def _unique_constraint(self, table: Relation, definitions: list[str]) -> None:
        chosen = self._indexable(table, self._rng.choice((1, 1, 2)))
        if chosen:
            names = ", ".join(c.name for c in chosen)
            nulls = self._rng.choice(("", "", " NULLS NOT DISTINCT"))
            definitions.append(f"UNIQUE{nulls} ({names})")
            table.arbiters.append((f"({names})", chosen))

    def _references(self, table: Relation, definitions: list[str]) -> None:
        """Foreign keys to the tables before it, or to itself."""
        rng = self._rng
        parents = [t for t in (*self._schema.tables, table) if t.arbiters]
        for number in range(rng.choice((0, 1, 1, 2)) if parents else 0):
            parent = rng.choice(parents)
            target, referenced = rng.choice([a for a in parent.arbiters if "WHERE" not in a[0]])
            match = " MATCH FULL" if rng.random() < 0.2 else ""
            names = []
            for at, column in enumerate(referenced):
                name = f"f{number}_{at}"
                default = (
                    f" DEFAULT {literal(column.kind, column.kind.common[0], LiteralStyle.random(rng))}"
                    if rng.random() < 0.4
                    else ""
                )
                definitions.append(f"{name} {column.kind.sql}{default}")
                table.columns.append(Column(name, column.kind))
                names.append(name)
            table.has_references = True
            deferrable = rng.choice(("", "", " DEFERRABLE", " DEFERRABLE INITIALLY DEFERRED"))
            definitions.append(
                f"FOREIGN KEY ({', '.join(names)}) REFERENCES {parent.name} {target}{match} "
                f"ON DELETE {rng.choice(FOREIGN_KEY_ACTIONS)} ON UPDATE {rng.choice(FOREIGN_KEY_ACTIONS)}{deferrable}"
            )

    def _indexable(self, table: Relation, count: int) -> list[Column]:
        usable = [c for c in table.columns if c.kind.is_key and c.kind not in (BYTEA, JSONB, INTERVAL)]
        return self._rng.sample(usable, min(count, len(usable)))

    def _indexes(self, table: Relation) -> None:
        rng = self._rng
        for number in range(rng.choice((0, 1, 1, 2, 3))):
            name = f"{table.name}i{number}"
            chosen = self._indexable(table, rng.choice((1, 1, 2)))
            if not chosen:
                return
            unique = rng.random() < 0.3
            names = ", ".join(c.name + rng.choice(("", "", "", " NULLS FIRST")) for c in chosen)
            if rng.random() < 0.2:
                chosen = chosen[:1]
                names = _expression(chosen[0], rng)
            predicate = f" WHERE {self._predicate(table)}" if rng.random() < 0.25 else ""
            nulls = " NULLS NOT DISTINCT" if unique and rng.random() < 0.2 else ""
            sql = f"CREATE {'UNIQUE ' if unique else ''}INDEX ASYNC {name} ON {table.name} ({names}){nulls}{predicate}"
            if unique:
                target = names.replace(" NULLS FIRST", "")
                table.arbiters.append((f"({target}){predicate}", chosen))
            (self._schema.before if unique or rng.random() < 0.6 else self._schema.after).append(sql)

    def _predicate(self, table: Relation) -> str:
        rng = self._rng
        column = rng.choice(table.columns)
        if column.kind in _WHOLE_NUMBERS or column.kind is NUMERIC:
            return f"{column.name} {rng.choice(('>', '<', '='))} {rng.randint(0, 5)}"
        return f"{column.name} IS {rng.choice(('', 'NOT '))}NULL"

    def _view(self, name: str) -> None:
        rng = self._rng
        table = rng.choice(self._schema.tables)
        columns = rng.sample(table.columns, rng.randint(1, len(table.columns)))
        where = f" WHERE {self._predicate(table)}" if rng.random() < 0.6 else ""
        style = rng.random()
        named = [Column(f"w{i}", c.kind) for i, c in enumerate(columns)]
        if style < 0.4:
            # Column aliases that are other columns' names: conditions must not be taken for conditions on those.
            swapped = [c.name for c in table.columns]
            rng.shuffle(swapped)
            kinds = {alias: c.kind for alias, c in zip(swapped, table.columns, strict=True)}
            source = f"{table.name} AS s ({', '.join(swapped)})"
            picked = rng.sample(swapped, rng.randint(1, len(swapped)))
            named = [Column(f"w{i}", kinds[p]) for i, p in enumerate(picked)]
            select = ", ".join(f"s.{p} AS w{i}" for i, p in enumerate(picked))
            sql = f"SELECT {select} FROM {source}"
        elif style < 0.8 or not table.columns[0].stable:
            sql = f"SELECT {', '.join(f'{c.name} AS w{i}' for i, c in enumerate(columns))} FROM {table.name}{where}"
        else:
            named = [Column("w0", table.columns[0].kind), Column("w1", BIGINT)]
            sql = f"SELECT {table.columns[0].name} AS w0, count(*) AS w1 FROM {table.name}{where} GROUP BY 1"
        self._schema.before.append(f"CREATE VIEW {name} AS {sql}")
        self._schema.views.append(Relation(name, named, is_view=True))


def _expression(column: Column, rng: random.Random) -> str:
    if column.kind in (TEXT, VARCHAR):
        return rng.choice((f"lower({column.name})", f"(length({column.name}))"))
    if column.kind in _WHOLE_NUMBERS:
        return rng.choice((f"({column.name} % 5)", f"({column.name} / 2)"))
    return f"({column.name} IS NULL)"
