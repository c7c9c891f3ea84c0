"""Random INSERT, UPDATE and DELETE statements over a schema, and whole scripts of transactions."""

from __future__ import annotations

from dataclasses import replace

from random_queries import ORDERED_FAMILIES, InScope, QueryGenerator
from random_schema import Column, Relation
from random_values import BIGINT, INT
from two_servers import Step

#: Added to integer keys by updates of many rows; powers, so that no sum of some of them meets another.
_KEY_OFFSET = 512


class ScriptGenerator(QueryGenerator):
    """Makes scripts: reads and writes in transactions and outside of them."""

    _offsets = 0

    def fill(self, table: Relation, rows: int) -> list[Step]:
        """Statements that put random rows into the table; some are refused."""
        found: list[Step] = []
        while rows > 0:
            self.start()
            # A reference to nothing refuses the whole statement, so those with references are short.
            count = min(rows, self.rng.randint(1, 2 if table.has_references else 12))
            rows -= count
            on_conflict = " ON CONFLICT DO NOTHING" if self.rng.random() < 0.8 else ""
            found += self.steps(
                f"{self._insert_values(table, count)}{on_conflict}", ambiguous=count > 1 or table.has_computed_key
            )
        return found

    def transaction(self) -> list[Step]:
        """A few statements: each on its own, or together in a block that commits or not."""
        rng = self.rng
        count = rng.choice((1, 1, 2, 3, 4, 6))
        roll = rng.random()
        if roll < 0.15:
            return self._request(max(count, 2))
        if roll < 0.45:
            return [step for _ in range(count) for step in self.statement()]
        end = "COMMIT" if rng.random() < 0.8 else "ROLLBACK"
        return [Step("BEGIN"), *(step for _ in range(count) for step in self.statement()), Step(end, ambiguous=True)]

    def _request(self, count: int) -> list[Step]:
        """Some statements at once: in one text, or in one pipeline with one Sync behind all of them."""
        steps = [step for _ in range(count) for step in self.statement()]
        texts = [step.sql for step in steps if step.parameters is None]
        if len(texts) == len(steps) or (len(texts) > 1 and self.rng.random() < 0.5):
            return [Step("; ".join(texts), ambiguous=True)]
        return [replace(steps[0], ambiguous=True, then=tuple(steps[1:]))]

    def statement(self) -> list[Step]:
        """A random statement."""
        roll = self.rng.random()
        if roll < 0.4:
            return self.select()
        self.start()
        if roll < 0.6:
            return self._insert()
        if roll < 0.82:
            return self._update()
        return self._delete() if roll < 0.93 else self._modifying_cte()

    def contents(self) -> list[Step]:
        """Queries that show everything."""
        return [Step(f"SELECT * FROM {r.name}") for r in (*self.schema.tables, *self.schema.views)]

    # -- INSERT ----------------------------------------------------------------------------------------------

    def table(self) -> Relation:
        return self.rng.choice(self.schema.tables)

    def _insert_values(self, table: Relation, count: int) -> str:
        rng = self.rng
        columns = [c for c in table.writable if not c.nullable or rng.random() < 0.85] or table.writable
        rows = ", ".join("(" + ", ".join(self._new_value(c) for c in columns) + ")" for _ in range(count))
        return f"INSERT INTO {table.name} ({', '.join(c.name for c in columns)}) VALUES {rows}"

    def _new_value(self, column: Column) -> str:
        return "DEFAULT" if self.rng.random() < 0.02 else self.cell(column)

    def _insert(self) -> list[Step]:
        rng = self.rng
        table = self.table()
        count = rng.choice((1, 1, 1, 2, 4))
        is_query = rng.random() < 0.25
        sql = self._insert_query(table) if is_query else self._insert_values(table, count)
        if rng.random() < 0.55:
            sql += self._on_conflict(table)
        many = is_query or count > 1 or table.has_computed_key
        return self.steps(sql + self._returning(table), ambiguous=many)

    def _insert_query(self, table: Relation) -> str:
        """INSERT … SELECT from one or more tables, in an order of its own, for the first of two equal keys wins."""
        rng = self.rng
        source, scope = self.source() if rng.random() < 0.4 else self._one_source([])
        shown = []
        for column in table.writable:
            same = [c for c in scope if c.kind == column.kind]
            if same and rng.random() < 0.8:
                shown.append(str(rng.choice(same)))
            elif column.kind in (INT, BIGINT) and rng.random() < 0.3:
                shown.append(f"(row_number() OVER (ORDER BY {self._order(scope)}))")
            else:
                shown.append(f"{self.cell(column)}::{column.kind.sql}")
        limit = f" LIMIT {rng.choice((1, 2, 3, 5, 40))}"
        return (
            f"INSERT INTO {table.name} ({', '.join(c.name for c in table.writable)}) SELECT {', '.join(shown)} "
            f"FROM {source}{self.where(scope)} ORDER BY {self._order(scope)}{limit}"
        )

    def _order(self, scope: list[InScope]) -> str:
        return ", ".join(f"{c}::text" for c in scope)

    def _on_conflict(self, table: Relation) -> str:
        rng = self.rng
        if not table.arbiters or rng.random() < 0.3:
            return " ON CONFLICT DO NOTHING"
        target, arbiter = rng.choice(table.arbiters)
        if rng.random() < 0.3:
            return f" ON CONFLICT {target} DO NOTHING"
        free = [c for c in table.writable if c.name not in table.key_columns] or [
            c for c in table.writable if c in arbiter
        ]
        if not free:
            return f" ON CONFLICT {target} DO NOTHING"
        sets = []
        for column in rng.sample(free, min(2, len(free))):
            value = rng.choice((f"excluded.{column.name}", f"{table.name}.{column.name}", self.cell(column)))
            sets.append(f"{column.name} = {value}")
        where = ""
        if rng.random() < 0.3:
            where = f" WHERE {self.condition(self.columns_of(table, table.name), 2)}"
        return f" ON CONFLICT {target} DO UPDATE SET {', '.join(sets)}{where}"

    def _returning(self, table: Relation) -> str:
        return self.rng.choice(("", "", " RETURNING *", f" RETURNING {table.name}.{table.columns[0].name} AS r"))

    # -- UPDATE ----------------------------------------------------------------------------------------------

    def _update(self) -> list[Step]:
        rng = self.rng
        table = self.table()
        roll = rng.random()
        if roll < 0.35 and table.primary_key:
            return self._update_one(table)
        if roll < 0.5:
            found = self._update_from(table)
            if found:
                return found
        if roll < 0.6:
            found = self._move_keys(table)
            if found:
                return found
        free = [c for c in table.writable if c.name not in table.key_columns]
        if not free:
            return self._update_one(table) if table.primary_key else self._delete()
        sets = [f"{c.name} = {self._new_cell(table, c)}" for c in rng.sample(free, min(2, len(free)))]
        scope = self.columns_of(table, table.name)
        sql = f"UPDATE {table.name} SET {', '.join(sets)}{self.where(scope)}{self._returning(table)}"
        return self.steps(sql, ambiguous=True)

    def _new_cell(self, table: Relation, column: Column) -> str:
        if column.kind is INT and self.rng.random() < 0.3:
            return f"{column.name} / 2"
        same = [c for c in table.columns if c.kind == column.kind and (c.nullable <= column.nullable)]
        return self.rng.choice((self.cell(column), self.cell(column), self.rng.choice(same).name))

    def _update_one(self, table: Relation) -> list[Step]:
        """One row by its key; any column may change."""
        scope = self.columns_of(table, table.name)
        key = [c for c in scope if c.column in table.primary_key]
        columns = self.rng.sample(table.writable, min(self.rng.randint(1, 2), len(table.writable)))
        sets = ", ".join(f"{c.name} = {self.cell(c)}" for c in columns)
        where = " AND ".join(f"{c} = {self.value(c.kind)}" for c in key)
        sql = f"UPDATE {table.name} SET {sets} WHERE {where}{self._returning(table)}"
        return self.steps(sql, ambiguous=table.has_computed_key)

    def _update_from(self, table: Relation) -> list[Step]:
        rng = self.rng
        other = self.relation()
        free = [c for c in table.writable if c.name not in table.key_columns]
        pairs = [(a, b) for a in table.columns for b in other.columns if a.kind == b.kind and b.stable]
        shown = [(a, b) for a in free for b in other.columns if a.kind == b.kind and b.kind.family in ORDERED_FAMILIES]
        if not pairs or not shown:
            return []
        (a, b), (target, value) = rng.choice(pairs), rng.choice(shown)
        scope = self.columns_of(table, "u")
        sql = (
            f"UPDATE {table.name} AS u SET {target.name} = s.m FROM (SELECT o.{b.name} AS k, max(o.{value.name}) AS m "
            f"FROM {other.name} AS o GROUP BY 1) AS s WHERE u.{a.name} = s.k"
        )
        if rng.random() < 0.4:
            sql += f" AND {self.condition(scope, 1)}"
        return self.steps(sql, ambiguous=True)

    def _move_keys(self, table: Relation) -> list[Step]:
        movable = [c for c in table.writable if c.kind in (INT, BIGINT) and c.name in table.key_columns]
        if not movable or self._offsets > 18:
            return []
        column = self.rng.choice(movable)
        self._offsets += 1
        offset = _KEY_OFFSET << self._offsets
        scope = self.columns_of(table, table.name)
        sql = f"UPDATE {table.name} SET {column.name} = {column.name} + {offset}{self.where(scope)}"
        return self.steps(sql, ambiguous=True, once=True)

    # -- DELETE and both -------------------------------------------------------------------------------------

    def _delete(self) -> list[Step]:
        rng = self.rng
        table = self.table()
        scope = self.columns_of(table, "d")
        sql = f"DELETE FROM {table.name} AS d"
        other = self.relation()
        pairs = [(a, b) for a in table.columns for b in other.columns if a.kind == b.kind]
        if rng.random() < 0.3 and pairs:
            a, b = rng.choice(pairs)
            sql += f" USING {other.name} AS o WHERE d.{a.name} = o.{b.name} AND {self.condition(scope, 1)}"
        else:
            parts = [f"d.{c.name} = {self.value(c.kind)}" for c in table.primary_key]
            where = " AND ".join(parts) if parts and rng.random() < 0.75 else self.condition(scope)
            sql += f" WHERE {where}"
        return self.steps(sql + rng.choice(("", " RETURNING d.*")), ambiguous=True)

    def _modifying_cte(self) -> list[Step]:
        rng = self.rng
        table, other = self.table(), self.table()
        scope = self.columns_of(table, table.name)
        free = [c for c in table.writable if c.name not in table.key_columns]
        style = rng.random()
        if style < 0.4 or not free:
            change = f"DELETE FROM {table.name}{self.where(scope, 1.0)} RETURNING *"
        elif style < 0.7:
            column = rng.choice(free)
            change = f"UPDATE {table.name} SET {column.name} = {self.cell(column)}{self.where(scope, 1.0)} RETURNING *"
        else:
            change = f"{self._insert_values(table, rng.randint(1, 3))} ON CONFLICT DO NOTHING RETURNING *"
        if rng.random() < 0.5:
            # The query sees the other table, or the same, as it was before.
            shown = self.columns_of(other, "o")
            sql = f"SELECT count(*), (SELECT count(*) FROM {other.name} AS o{self.where(shown)}) FROM w"
        else:
            sql = "SELECT * FROM w"
        return self.steps(f"WITH w AS ({change}) {sql}", ambiguous=True)
