"""Random SELECT statements over a schema, built so that PostgreSQL's answer to each is unique."""

from __future__ import annotations

import random
from dataclasses import dataclass

from random_schema import Column, Relation, Schema
from random_values import BIGINT, BOOLEAN, NULL_SHARE, TEXT, Kind, random_text
from statement_forms import Forms, Values
from two_servers import Step

ORDERED_FAMILIES = frozenset({"number", "moment", "string"})
_COMPARISONS = ("=", "=", "=", "<", "<=", ">", ">=", "<>")


@dataclass(frozen=True)
class InScope:
    """A column under the alias by which the query reaches it."""

    alias: str
    column: Column

    @property
    def kind(self) -> Kind:
        return self.column.kind

    def __str__(self) -> str:
        return f"{self.alias}.{self.column.name}"


class QueryGenerator:
    """Makes statements over one schema. ``steps`` turns a statement's text into one that can be run."""

    def __init__(self, rng: random.Random, schema: Schema) -> None:
        self.rng = rng
        self.schema = schema
        self._aliases = 0
        self._forms = Forms(rng)
        self.values = Values()

    # -- text to steps ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a statement."""
        self.values = Values()
        self._aliases = 0

    def steps(
        self, sql: str, *, ordered: bool = False, ambiguous: bool = False, both: bool = False, once: bool = False
    ) -> list[Step]:
        """The statement in one form, or several times in different ones."""
        return self._forms.steps(sql, self.values, ordered=ordered, ambiguous=ambiguous, both=both, once=once)

    # -- values and conditions -------------------------------------------------------------------------------

    def value(self, kind: Kind, null_share: float = 0.02) -> str:
        text = None if self.rng.random() < null_share else random_text(self.rng, kind)
        return self.values.mark(kind, text)

    def cell(self, column: Column) -> str:
        """A value for an INSERT or UPDATE of the column."""
        return self.value(column.kind, NULL_SHARE if column.nullable else 0.01)

    def alias(self) -> str:
        self._aliases += 1
        return f"q{self._aliases}"

    def condition(self, scope: list[InScope], depth: int = 0) -> str:
        """A condition over the columns in scope that raises no error, whatever rows it meets."""
        rng = self.rng
        roll = rng.random()
        if depth < 2 and roll < 0.3:
            parts = [self.condition(scope, depth + 1) for _ in range(rng.randint(2, 3))]
            return "(" + rng.choice((" AND ", " AND ", " OR ")).join(parts) + ")"
        if depth < 2 and roll < 0.35:
            return f"NOT ({self.condition(scope, depth + 1)})"
        if depth < 2 and roll < 0.5:
            return self._sub_query_condition(scope)
        return self._simple_condition(rng.choice(scope), scope)

    def _simple_condition(self, own: InScope, scope: list[InScope]) -> str:
        rng, kind = self.rng, own.kind
        makers = (
            lambda: f"{own} {rng.choice(_COMPARISONS)} {self.value(kind)}",
            lambda: f"{own} = {self.value(kind)}",
            lambda: f"{self.value(kind)} {rng.choice(_COMPARISONS)} {own}",
            lambda: f"{own} IN ({', '.join(self.value(kind) for _ in range(rng.randint(1, 4)))})",
            lambda: f"{own} NOT IN ({self.value(kind)}, {self.value(kind)})",
            lambda: f"{own} IS {rng.choice(('', 'NOT '))}NULL",
            lambda: f"{own} {rng.choice(('', 'NOT '))}BETWEEN {self.value(kind)} AND {self.value(kind)}",
            lambda: f"{own} IS {rng.choice(('', 'NOT '))}DISTINCT FROM {self.value(kind)}",
            lambda: self._column_comparison(own, scope),
            lambda: self._row_comparison(own, scope),
            lambda: self._odd_condition(own),
        )
        return rng.choice(makers)()

    def _column_comparison(self, own: InScope, scope: list[InScope]) -> str:
        others = [o for o in scope if o.kind.family == own.kind.family and o != own]
        if not others:
            return f"{own} = {self.value(own.kind)}"
        return f"{own} {self.rng.choice(_COMPARISONS)} {self.rng.choice(others)}"

    def _row_comparison(self, own: InScope, scope: list[InScope]) -> str:
        other = self.rng.choice(scope)
        pair = f"({own}, {other})"
        if self.rng.random() < 0.4:
            rows = ", ".join(f"({self.value(own.kind)}, {self.value(other.kind)})" for _ in range(2))
            return f"{pair} IN ({rows})"
        return f"{pair} {self.rng.choice(('=', '<', '>=', '>'))} ({self.value(own.kind)}, {self.value(other.kind)})"

    def _odd_condition(self, own: InScope) -> str:
        """Shapes that no key range can be made of, or only with care."""
        rng, family = self.rng, own.kind.family
        if own.kind is BOOLEAN:
            return rng.choice((f"{own}", f"NOT {own}", f"{own} IS TRUE", f"{own} IS NOT FALSE", f"{own} = true"))
        if family == "number":
            number = rng.choice(("1", "2", "1.0", "1.5", "2.0", "0", "3"))
            return rng.choice(
                (
                    f"{own} = {number}", f"{own} < {number}", f"{own}::numeric = {number}", f"{own} > '-1'",
                    f"{own} = {number}::double precision", f"coalesce({own}, 0) >= {number}", f"{own} = -1",
                    f"{own} = ANY (ARRAY[1, 2, NULL, 5])", f"CASE WHEN {own} > 2 THEN {own} ELSE 1 END = {number}",
                    f"{own} = ANY ('{{1,2,3}}')", f"{own} = (SELECT 1)", f"{own} <> ALL (ARRAY[1, 2])",
                )
            )  # fmt: skip
        if family == "string":
            return rng.choice(
                (
                    f"lower({own}) = 'a'", f"{own} LIKE 'a%'", f"{own} ~ '^[ab]'", f"length({own}) = 1",
                    f"{own}::text = 'a'", f"{own} = 'a'::char(3)", f"{own} = 'b'::varchar", f"{own} || 'x' = 'ax'",
                    f"{own} = ANY ('{{a,\"b\",NULL}}')", f"{own} COLLATE \"C\" > 'a'", f"{own} ILIKE 'A%'",
                )
            )  # fmt: skip
        if family == "moment":
            return rng.choice(
                (f"{own} < '2024-03-01'::date", f"{own} >= '2000-01-01'::timestamptz", f"{own} <= now()",
                 f"{own}::date = '2024-02-29'", f"{own} = '2000-01-01'::timestamp")
            )  # fmt: skip
        return f"{own} IN (SELECT {self.value(own.kind)}::{own.kind.sql})"

    def _sub_query_condition(self, scope: list[InScope]) -> str:
        rng = self.rng
        relation = rng.choice([*self.schema.tables, *self.schema.tables, *self.schema.views])
        inner = self.columns_of(relation, alias := self.alias())
        outer = rng.choice(scope)
        matching = [c for c in inner if c.kind.family == outer.kind.family]
        where = [self._simple_condition(rng.choice(inner), inner)] if rng.random() < 0.6 else []
        source = f"{relation.name} AS {alias}"
        if matching and rng.random() < 0.7:
            chosen = rng.choice(matching)
            if rng.random() < 0.4:
                text = f" WHERE {' AND '.join(where)}" if where else ""
                return f"{outer} {rng.choice(('IN', 'NOT IN'))} (SELECT {chosen} FROM {source}{text})"
            if rng.random() < 0.3 and chosen.column.stable and chosen.kind.family in ORDERED_FAMILIES:
                text = f" WHERE {' AND '.join(where)}" if where else ""
                return f"{outer} {rng.choice(_COMPARISONS)} (SELECT max({chosen}) FROM {source}{text})"
            where.append(f"{chosen} {rng.choice(('=', '=', '=', '<'))} {outer}")
        text = f" WHERE {' AND '.join(where)}" if where else ""
        return f"{rng.choice(('EXISTS', 'NOT EXISTS'))} (SELECT 1 FROM {source}{text})"

    # -- FROM ------------------------------------------------------------------------------------------------

    def columns_of(self, relation: Relation, alias: str) -> list[InScope]:
        return [InScope(alias, c) for c in relation.columns]

    def relation(self) -> Relation:
        return self.rng.choice([*self.schema.tables, *self.schema.tables, *self.schema.views])

    def source(self) -> tuple[str, list[InScope]]:
        """A FROM clause of one to three relations, and the columns that it brings into scope."""
        rng = self.rng
        text, scope = self._one_source([])
        for _ in range(rng.choice((0, 0, 0, 1, 1, 2))):
            kind = rng.choice(("JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "CROSS JOIN"))
            right, columns = self._one_source([] if kind in ("RIGHT JOIN", "FULL JOIN") else scope)
            if kind == "CROSS JOIN":
                text += f" CROSS JOIN {right}"
            else:
                text += f" {kind} {right} ON {self._join_condition(scope, columns, kind == 'FULL JOIN')}"
            scope = scope + columns
        return text, scope

    def _join_condition(self, left: list[InScope], right: list[InScope], plain: bool) -> str:
        pairs = [(a, b) for a in left for b in right if a.kind.sql == b.kind.sql or a.kind.family == b.kind.family]
        if not pairs:
            return "true" if plain else self._simple_condition(self.rng.choice(right), right)
        a, b = self.rng.choice(pairs)
        if plain:  # PostgreSQL runs FULL JOIN only on conditions that it can merge or hash
            same = [(a, b) for a, b in pairs if a.kind == b.kind]
            return "{} = {}".format(*self.rng.choice(same)) if same else "true"
        found = f"{a} = {b}" if self.rng.random() < 0.85 else f"{a} < {b}"
        if self.rng.random() < 0.3:
            found += f" AND {self._simple_condition(self.rng.choice(right), right)}"
        return found

    def _one_source(self, outer: list[InScope]) -> tuple[str, list[InScope]]:
        rng = self.rng
        relation, alias = self.relation(), self.alias()
        if rng.random() < 0.12:
            inner = self.columns_of(relation, self.alias())
            chosen = rng.sample(inner, rng.randint(1, len(inner)))
            select = ", ".join(f"{c} AS x{i}" for i, c in enumerate(chosen))
            scope = [InScope(alias, Column(f"x{i}", c.kind)) for i, c in enumerate(chosen)]
            lateral = bool(outer) and rng.random() < 0.6
            where = self.condition([*inner, *outer] if lateral else inner, 1)
            text = f"(SELECT {select} FROM {relation.name} AS {inner[0].alias} WHERE {where})"
            return f"{'LATERAL ' if lateral else ''}{text} AS {alias}", scope
        if rng.random() < 0.08:
            union = self._union(relation, alias)
            if union is not None:
                return union
        if rng.random() < 0.08:
            # Columns renamed to one another's names.
            names = [c.name for c in relation.columns]
            rng.shuffle(names)
            scope = [InScope(alias, Column(n, c.kind)) for n, c in zip(names, relation.columns, strict=True)]
            return f"{relation.name} AS {alias} ({', '.join(names)})", scope
        return f"{relation.name} AS {alias}", self.columns_of(relation, alias)

    def _union(self, left: Relation, alias: str) -> tuple[str, list[InScope]] | None:
        """Two relations under one another, as far as they have columns of the same types."""
        right = self.relation()
        a, b = self.columns_of(left, self.alias()), self.columns_of(right, self.alias())
        pairs = [(x, y) for x in a for y in b if x.kind == y.kind]
        if not pairs:
            return None
        pairs = self.rng.sample(pairs, min(len(pairs), 2))
        arms = (
            f"SELECT {', '.join(f'{x} AS x{i}' for i, (x, _) in enumerate(pairs))} FROM {left.name} AS {a[0].alias}",
            f"SELECT {', '.join(str(y) for _, y in pairs)} FROM {right.name} AS {b[0].alias}",
        )
        text = f"({arms[0]}{self.where(a, 0.6)} UNION ALL {arms[1]}{self.where(b, 0.6)}) AS {alias}"
        return text, [InScope(alias, Column(f"x{i}", x.kind)) for i, (x, _) in enumerate(pairs)]

    # -- SELECT ----------------------------------------------------------------------------------------------

    def select(self) -> list[Step]:
        """A random query."""
        self.start()
        shapes = (
            self._point_select, self._point_select, self._plain_select, self._plain_select, self._plain_select,
            self._aggregate, self._grouped, self._window, self._distinct_on, self._set_operation, self._cte,
            self._scalar_sub_query, self._locking, self._first_rows, self._first_rows, self._extremes,
        )  # fmt: skip
        return self.rng.choice(shapes)()

    def where(self, scope: list[InScope], share: float = 0.8) -> str:
        return f" WHERE {self.condition(scope)}" if self.rng.random() < share else ""

    def _point_select(self) -> list[Step]:
        table = self.rng.choice(self.schema.tables)
        scope = self.columns_of(table, table.name)
        key = [c for c in scope if c.column in table.primary_key] or scope[:1]
        return self.steps(f"SELECT * FROM {table.name} WHERE {self.key_condition(key)}", both=True)

    def key_condition(self, key: list[InScope]) -> str:
        """Mostly equality on all of a key, sometimes a range or a list on its last column."""
        rng = self.rng
        parts = [f"{c} = {self.value(c.kind)}" for c in key]
        if rng.random() < 0.4:
            last = key[-1]
            listed = ", ".join(self.value(last.kind) for _ in range(3))
            parts[-1] = rng.choice(
                (
                    f"{last} IN ({listed})",
                    f"{last} >= {self.value(last.kind)} AND {last} < {self.value(last.kind)}",
                    f"{last} > {self.value(last.kind)}",
                )
            )
        return " AND ".join(parts)

    def _plain_select(self) -> list[Step]:
        rng = self.rng
        source, scope = self.source()
        chosen = rng.sample(scope, rng.randint(1, min(5, len(scope))))
        sql = f"SELECT {', '.join(map(str, chosen))} FROM {source}{self.where(scope)}"
        if rng.random() < 0.35 and all(c.column.stable for c in chosen):
            sql += " ORDER BY " + ", ".join(f"{i + 1}{rng.choice(('', ' DESC'))}" for i in range(len(chosen)))
            if rng.random() < 0.6:
                sql += f" LIMIT {self.values.mark(BIGINT, str(rng.randint(0, 8)), fixed=True)}"
            return self.steps(sql, ordered=True, both=True)
        return self.steps(sql, both=True)

    def _first_rows(self) -> list[Step]:
        """Pages by a key: what storage may cut short."""
        rng = self.rng
        table = rng.choice(self.schema.tables)
        scope = self.columns_of(table, table.name)
        key = [c for c in scope if c.column in table.primary_key]
        key = key if all(c.column.stable for c in key) else []
        first = [rng.choice(scope)] if rng.random() < 0.4 else []
        order = [c for c in (*first, *(key or scope)) if c.column.stable]
        if not order or (not key and not all(c.column.stable for c in scope)):
            return self._plain_select()
        direction = rng.choice(("", " DESC"))
        where = (
            f" WHERE {self.key_condition(rng.choice((order[:1], key[:1] or order[:1])))}" if rng.random() < 0.5 else ""
        )
        if rng.random() < 0.3:
            where += (" AND " if where else " WHERE ") + self._simple_condition(rng.choice(scope), scope)
        sql = f"SELECT * FROM {table.name}{where} ORDER BY {', '.join(f'{c}{direction}' for c in order)}"
        limited = rng.random() < 0.9
        if limited:
            sql += f" LIMIT {self.values.mark(BIGINT, str(rng.randint(0, 6)), fixed=True)}"
        if not limited or rng.random() < 0.3:
            sql += f" OFFSET {self.values.mark(BIGINT, str(rng.randint(0, 4)), fixed=True)}"
        return self.steps(sql, ordered=True, both=True)

    def _extremes(self) -> list[Step]:
        """The greatest and the least of a column, perhaps for each row of another table."""
        rng = self.rng
        table = rng.choice(self.schema.tables)
        scope = self.columns_of(table, "e")
        usable = [c for c in scope if c.column.stable and c.kind.family in ORDERED_FAMILIES]
        if not usable:
            return self._aggregate()
        column = rng.choice(usable)
        where = f" WHERE {self._simple_condition(rng.choice(scope), scope)}" if rng.random() < 0.6 else ""
        sql = f"SELECT max({column}), min({rng.choice(usable)}) FROM {table.name} AS e{where}"
        if rng.random() < 0.4:
            source, outer = self._one_source([])
            pairs = [(a, b) for a in scope for b in outer if a.kind.family == b.kind.family]
            if pairs:
                joined = "{} = {}".format(*rng.choice(pairs))
                inner = f"(SELECT {rng.choice(('max', 'min'))}({column}) FROM {table.name} AS e WHERE {joined})"
                sql = f"SELECT {outer[0]}, {inner} FROM {source}"
        return self.steps(sql, both=True)

    def _aggregate(self) -> list[Step]:
        source, scope = self.source()
        return self.steps(f"SELECT {self._aggregates(scope)} FROM {source}{self.where(scope, 0.5)}", both=True)

    def _aggregates(self, scope: list[InScope]) -> str:
        rng = self.rng
        found = ["count(*)"]
        for column in rng.sample(scope, min(2, len(scope))):
            found.append(f"count({column})")
            if column.column.stable and column.kind.family in ORDERED_FAMILIES:
                found.append(f"{rng.choice(('min', 'max'))}({column})")
            if column.column.stable and column.kind.family == "number":
                found.append(f"sum({column}) FILTER (WHERE {self.condition(scope, 1)})")
            if column.kind is TEXT:
                found.append(f"string_agg({column}, ',' ORDER BY {column})")
            if column.column.stable and rng.random() < 0.3:
                found.append(f"count(DISTINCT {column})")
        return ", ".join(found)

    def _grouped(self) -> list[Step]:
        rng = self.rng
        source, scope = self.source()
        stable = [c for c in scope if c.column.stable]
        if not stable:
            return self._aggregate()
        keys = rng.sample(stable, min(rng.randint(1, 2), len(stable)))
        listed = ", ".join(map(str, keys))
        having = f" HAVING count(*) > {rng.randint(0, 2)}" if rng.random() < 0.4 else ""
        grouping = f"ROLLUP ({listed})" if rng.random() < 0.15 else listed
        sql = f"SELECT {listed}, {self._aggregates(scope)} FROM {source}{self.where(scope, 0.6)}"
        return self.steps(f"{sql} GROUP BY {grouping}{having}", both=True)

    def _window(self) -> list[Step]:
        source, scope = self.source()
        stable = [c for c in scope if c.column.stable]
        if not stable:
            return self._plain_select()
        order = ", ".join(map(str, stable))
        shown = self.rng.choice(stable)
        return self.steps(
            f"SELECT {order}, rank() OVER (PARTITION BY {shown} ORDER BY {order}), "
            f"count(*) OVER (PARTITION BY {shown}), dense_rank() OVER (ORDER BY {order}) "
            f"FROM {source}{self.where(scope)}"
        )

    def _distinct_on(self) -> list[Step]:
        source, scope = self.source()
        stable = [c for c in scope if c.column.stable][:4]
        if not stable:
            return self._plain_select()
        listed = ", ".join(map(str, stable))
        distinct = "DISTINCT" if self.rng.random() < 0.4 else f"DISTINCT ON ({stable[0]})"
        return self.steps(
            f"SELECT {distinct} {listed} FROM {source}{self.where(scope)} ORDER BY {listed}", ordered=True
        )

    def _set_operation(self) -> list[Step]:
        rng = self.rng
        left, right = self.relation(), self.relation()
        scope_left, scope_right = self.columns_of(left, self.alias()), self.columns_of(right, self.alias())
        pairs = [(a, b) for a in scope_left for b in scope_right if a.kind == b.kind and a.column.stable]
        if not pairs:
            return self._plain_select()
        a, b = rng.choice(pairs)
        operation = rng.choice(("UNION", "UNION ALL", "INTERSECT", "EXCEPT", "EXCEPT ALL", "INTERSECT ALL"))
        sql = (
            f"SELECT {a} AS u FROM {left.name} AS {a.alias}{self.where(scope_left)} {operation} "
            f"SELECT {b} FROM {right.name} AS {b.alias}{self.where(scope_right)}"
        )
        if rng.random() < 0.3:
            outer = Column("u", a.kind)
            sql = f"SELECT z.u FROM ({sql}) AS z{self.where([InScope('z', outer)])}"
        return self.steps(sql, both=True)

    def _cte(self) -> list[Step]:
        rng = self.rng
        source, scope = self.source()
        chosen = rng.sample(scope, min(3, len(scope)))
        inner = ", ".join(f"{c} AS x{i}" for i, c in enumerate(chosen))
        hint = rng.choice(("", "MATERIALIZED ", "NOT MATERIALIZED "))
        outer = [InScope("w", Column(f"x{i}", c.kind)) for i, c in enumerate(chosen)]
        body = f"SELECT {inner} FROM {source}{self.where(scope)}"
        if rng.random() < 0.4:
            other = self.relation()
            joined = self.columns_of(other, alias := self.alias())
            condition = self._join_condition(outer, joined, False)
            sql = f"SELECT w.*, {joined[0]} FROM w LEFT JOIN {other.name} AS {alias} ON {condition}"
        else:
            sql = f"SELECT * FROM w{self.where(outer)}"
        return self.steps(f"WITH w AS {hint}({body}) {sql}", both=True)

    def _scalar_sub_query(self) -> list[Step]:
        rng = self.rng
        source, scope = self.source()
        other = self.relation()
        inner = self.columns_of(other, alias := self.alias())
        pairs = [(a, b) for a in scope for b in inner if a.kind.family == b.kind.family]
        where = "{} = {}".format(*rng.choice(pairs)) if pairs else self._simple_condition(inner[0], inner)
        shown = rng.choice(scope)
        counted = f"(SELECT count(*) FROM {other.name} AS {alias} WHERE {where})"
        return self.steps(f"SELECT {shown}, {counted} FROM {source}{self.where(scope)}", both=True)

    def _locking(self) -> list[Step]:
        table = self.rng.choice(self.schema.tables)
        scope = self.columns_of(table, table.name)
        lock = self.rng.choice(("FOR UPDATE", "FOR KEY SHARE"))
        return self.steps(f"SELECT * FROM {table.name}{self.where(scope)} {lock}", both=True)
