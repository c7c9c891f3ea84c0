"""DDL that DSQL takes as it stands; what it cannot hold is refused here, with the reason and the alternative."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc, schema, util
from sqlalchemy import types as sqltypes
from sqlalchemy.dialects.postgresql.base import PGDDLCompiler
from sqlalchemy.sql import coercions, elements, operators, roles

from dsql_dialects.sqlalchemy import columns
from dsql_dialects.sqlalchemy.errors import UnsupportedError
from dsql_dialects.sqlalchemy.options import option
from dsql_dialects.sqlalchemy.types import check_column_type, check_key_type, check_key_width, implementation

TABLE_COLUMNS_MAX = 255

_NULLS_ORDER = frozenset({operators.nulls_first_op, operators.nulls_last_op})
_SORT_ORDER = frozenset({operators.asc_op, operators.desc_op})

#: Options of tables that DSQL doesn't have.
_TABLE_OPTIONS = {
    "inherits": "DSQL has no table inheritance",
    "partition_by": "DSQL spreads tables by itself",
    "using": "DSQL has one table access method",
    "with": "DSQL has no storage parameters",
    "with_oids": "DSQL has no OIDs in tables",
    "on_commit": "DSQL has no temporary tables",
    "tablespace": "DSQL has no tablespaces",
}
#: Options of indexes that DSQL doesn't have, and what to do instead. USING btree and CONCURRENTLY say what ASYNC does.
_INDEX_OPTIONS = {
    "with": ("DSQL has no storage parameters", "leave it out"),
    "tablespace": ("DSQL has no tablespaces", "leave it out"),
    "ops": (
        "DSQL has no operator classes",
        "leave it out: DSQL's only collation is C, so that LIKE 'a%' uses the index",
    ),
}


class DSQLDDLCompiler(PGDDLCompiler):
    """Compiles DDL elements, one statement each; what takes several is in :mod:`dsql_dialects.sqlalchemy.steps`."""

    @property
    def _identity_cache(self) -> int:
        cache: int = getattr(self.dialect, "identity_cache", columns.IDENTITY_CACHE)
        return cache

    def visit_create_table(self, create: Any, **kw: Any) -> str:
        table = create.element
        self._check_table(table)
        if not self.dialect.supports_constraint_comments:
            _warn_of_comments(table)
        return str(super().visit_create_table(create, **kw))

    def _check_table(self, table: schema.Table) -> None:
        name = f"table {table.fullname!r}"
        for prefix in table._prefixes:
            raise UnsupportedError(f"{name}, prefix {str(prefix)!r}", "DSQL has plain tables only", "leave it out")
        for wanted, reason in _TABLE_OPTIONS.items():
            if option(table, wanted) is not None:
                raise UnsupportedError(f"{name}, postgresql_{wanted}", reason, "leave it out")
        if len(table.columns) > TABLE_COLUMNS_MAX:
            raise UnsupportedError(
                f"{name} with {len(table.columns)} columns",
                f"DSQL's tables have at most {TABLE_COLUMNS_MAX}",
                "move some to another table or into a JSONB column",
            )

    def get_column_specification(self, column: schema.Column[Any], **kw: Any) -> str:
        columns.check_identity_type(column, self.dialect)
        name = self.preparer.format_column(column)
        type_ = self.type_compiler.render_column_type(
            columns.stored_type(column, self.dialect), type_expression=column, identifier_preparer=self.preparer
        )
        parts = [name, type_]
        identity = column.identity
        if identity is None and columns.is_generated(column, self.dialect):
            identity = columns.implied_identity(column)
        default = self.get_column_default_string(column)
        if identity is not None:
            parts.append(self.visit_identity_column(identity))
        elif default is not None:
            parts.append(f"DEFAULT {default}")
        if column.computed is not None:
            parts.append(self.process(column.computed))
        if not column.nullable:
            parts.append("NOT NULL")
        elif identity is not None:
            parts.append("NULL")
        check = self._enum_check(column)
        if check is not None:
            parts.append(f"CHECK ({check})")
        return " ".join(parts)

    def _enum_check(self, column: schema.Column[Any]) -> str | None:
        """What stands in for PostgreSQL's enum type: the values as a CHECK of the column."""
        type_ = implementation(column.type, self.dialect)
        declared = column.type
        if isinstance(declared, sqltypes.TypeDecorator):
            declared = declared.impl_instance
        if not isinstance(type_, sqltypes.Enum) or not type_.enums or not getattr(declared, "native_enum", True):
            return None
        if getattr(declared, "create_constraint", False):  # SQLAlchemy's own CHECK of the table
            return None
        values = ", ".join(self.sql_compiler.render_literal_value(value, sqltypes.String()) for value in type_.enums)
        return f"{self.preparer.format_column(column)} IN ({values})"

    def visit_identity_column(self, identity: Any, **kw: Any) -> str:
        columns.check_cache(identity.cache, "Identity()")
        return str(super().visit_identity_column(identity, **kw))

    def get_identity_options(self, identity_options: Any) -> str:
        text = str(super().get_identity_options(identity_options))
        if identity_options.cache is None:
            text = f"{text} CACHE {self._identity_cache}".strip()
        return text

    def visit_create_sequence(self, create: Any, prefix: str | None = None, **kw: Any) -> str:
        sequence = create.element
        columns.check_cache(sequence.cache, f"sequence {sequence.name!r}")
        wanted = sequence.data_type
        if wanted is not None and not isinstance(implementation(wanted, self.dialect), sqltypes.Integer):
            raise UnsupportedError(
                f"sequence {sequence.name!r} of type {wanted!r}", "DSQL's sequences are BIGINT", "leave data_type out"
            )
        # BIGINT holds what the smaller types hold, and is what DSQL takes; it is also the default.
        return str(super(PGDDLCompiler, self).visit_create_sequence(create, prefix=prefix, **kw))

    def visit_computed_column(self, generated: Any, **kw: Any) -> str:
        if generated.persisted is False:
            raise UnsupportedError(
                f"Computed(persisted=False) of column {generated.column.name!r}",
                "DSQL's generated columns are stored",
                "leave persisted out",
            )
        text = self.sql_compiler.process(generated.sqltext, include_table=False, literal_binds=True)
        return f"GENERATED ALWAYS AS ({text}) STORED"

    def visit_create_domain_type(self, create: Any, **kw: Any) -> str:
        check_column_type(create.element, self.dialect)
        if create.element.collation not in (None, "C", "default"):
            raise UnsupportedError(
                f"domain {create.element.name!r} with a collation", "DSQL has the C collation only", "leave it out"
            )
        return str(super().visit_create_domain_type(create, **kw)).rstrip()

    def visit_create_enum_type(self, create: Any, **kw: Any) -> str:
        raise UnsupportedError(
            f"type {create.element.name!r}", "DSQL has no enum types", "create the tables: their columns get a CHECK"
        )

    # -- constraints ----------------------------------------------------------------------------------------------

    def visit_add_constraint(self, create: Any, **kw: Any) -> str:
        constraint = create.element
        if isinstance(constraint, schema.UniqueConstraint):
            return self.create_unique_index(constraint)
        table = self.preparer.format_table(constraint.table)
        if not isinstance(constraint, (schema.ForeignKeyConstraint, schema.CheckConstraint)):
            kind = type(constraint).__name__
            raise UnsupportedError(
                f"AddConstraint({kind}) on table {table}",
                "DSQL adds foreign keys, checks and unique constraints to existing tables, nothing else",
                "declare it with the table",
            )
        # Existing rows are checked by ALTER TABLE ASYNC … VALIDATE CONSTRAINT, which follows.
        text = self.process(constraint).removesuffix(" NOT VALID")
        return f"ALTER TABLE {table} ADD {text} NOT VALID"

    def create_unique_index(self, constraint: schema.UniqueConstraint) -> str:
        """The index that a unique constraint of an existing table is made from."""
        self._check_not_deferrable(constraint)
        table = self.preparer.format_table(constraint.table)
        names = ", ".join(self.preparer.quote(column.name) for column in constraint.columns)
        self._check_keys(constraint.columns, f"unique constraint {constraint.name!r}")
        name = unique_constraint_name(self, constraint)
        nulls = self._nulls_distinct(constraint)
        return f"CREATE UNIQUE INDEX ASYNC {name} ON {table} ({names}){self._define_include(constraint)}{nulls}"

    def visit_primary_key_constraint(self, constraint: Any, **kw: Any) -> str:
        if len(constraint) == 0:
            return ""
        self._check_not_deferrable(constraint)
        self._check_keys(constraint.columns, f"primary key of table {constraint.table.fullname!r}")
        return str(super().visit_primary_key_constraint(constraint, **kw))

    def visit_unique_constraint(self, constraint: Any, **kw: Any) -> str:
        if len(constraint) == 0:
            return ""
        self._check_not_deferrable(constraint)
        self._check_keys(constraint.columns, f"unique constraint {constraint.name!r}")
        return str(super().visit_unique_constraint(constraint, **kw))

    def define_unique_constraint_distinct(self, constraint: Any, **kw: Any) -> str:
        nulls = self._nulls_distinct(constraint)
        return f"{nulls.lstrip()} " if nulls else ""

    def visit_check_constraint(self, constraint: Any, **kw: Any) -> str:
        if constraint.deferrable or constraint.initially:
            raise UnsupportedError(
                f"check constraint {constraint.name!r}", "CHECK constraints cannot be deferred", "leave deferrable out"
            )
        return str(super().visit_check_constraint(constraint, **kw))

    def visit_exclude_constraint(self, constraint: Any, **kw: Any) -> str:
        raise UnsupportedError(
            f"exclusion constraint {constraint.name!r}",
            "DSQL has none",
            "check in a transaction that locks what it depends on with with_for_update()",
        )

    def _define_constraint_validity(self, constraint: Any) -> str:
        return " NOT VALID" if option(constraint, "not_valid") else ""

    def _check_not_deferrable(self, constraint: Any) -> None:
        if constraint.deferrable or constraint.initially:
            raise UnsupportedError(
                f"{type(constraint).__name__} {constraint.name!r}",
                "in DSQL only foreign keys can be deferred",
                "leave deferrable and initially out",
            )

    def _check_keys(self, key_columns: Any, where: str) -> None:
        found = list(key_columns)
        check_key_width(len(found), where)
        for column in found:
            check_key_type(column.type, self.dialect, f"{where}, column {column.name!r}")

    # -- indexes --------------------------------------------------------------------------------------------------

    def visit_create_index(
        self, create: Any, include_schema: bool = False, include_table_schema: bool = True, **kw: Any
    ) -> str:
        index = create.element
        self._verify_index_table(index)
        if index.name is None:
            raise exc.CompileError("CREATE INDEX requires that the index have a name")
        self._check_index(index)
        parts = ["CREATE UNIQUE INDEX ASYNC" if index.unique else "CREATE INDEX ASYNC"]
        if create.if_not_exists:
            parts.append("IF NOT EXISTS")
        keys = ", ".join(self._index_key(index, expression) for expression in index.expressions)
        parts.append(
            f"{self._prepared_index_name(index, include_schema=False)} ON {self.preparer.format_table(index.table)}"
            f" ({keys})"
        )
        text = " ".join(parts) + self._define_include(index) + self._nulls_distinct(index)
        where = option(index, "where")
        if where is not None:
            where = coercions.expect(roles.DDLExpressionRole, where)
            text += " WHERE " + self.sql_compiler.process(where, include_table=False, literal_binds=True)
        return text

    def _check_index(self, index: schema.Index) -> None:
        name = f"index {index.name!r}"
        using = option(index, "using")
        if using and using.lower() != "btree":
            raise UnsupportedError(
                f"{name}, postgresql_using={using!r}",
                "DSQL has one kind of index",
                "leave it out; for JSONB, index the expressions that you search by",
            )
        for wanted, (reason, alternative) in _INDEX_OPTIONS.items():
            if option(index, wanted):
                raise UnsupportedError(f"{name}, postgresql_{wanted}", reason, alternative)
        check_key_width(len(index.expressions), name)

    def _index_key(self, index: schema.Index, expression: Any) -> str:
        """One key of an index: a column or an expression, perhaps with NULLS FIRST or LAST."""
        nulls = ""
        while isinstance(expression, elements.UnaryExpression) and expression.modifier in _NULLS_ORDER | _SORT_ORDER:
            if expression.modifier is operators.desc_op:
                raise UnsupportedError(
                    f"index {index.name!r}, descending key {expression}",
                    "DSQL's indexes are ascending",
                    "leave out desc(): an index is read in both directions",
                )
            if expression.modifier in _NULLS_ORDER:
                nulls = " NULLS FIRST" if expression.modifier is operators.nulls_first_op else " NULLS LAST"
            expression = expression.element
        if isinstance(expression, schema.Column):
            check_key_type(expression.type, self.dialect, f"index {index.name!r}, column {expression.name!r}")
        elif not isinstance(expression, elements.ColumnClause):
            expression = expression.self_group()
        return str(self.sql_compiler.process(expression, include_table=False, literal_binds=True)) + nulls

    def _define_include(self, obj: Any) -> str:
        wanted = option(obj, "include")
        if not wanted:
            return ""
        included = [obj.table.c[name] if isinstance(name, str) else name for name in wanted]
        return f" INCLUDE ({', '.join(self.preparer.quote(column.name) for column in included)})"

    def _nulls_distinct(self, obj: Any) -> str:
        wanted = option(obj, "nulls_not_distinct")
        if wanted is None:
            return ""
        return " NULLS NOT DISTINCT" if wanted else " NULLS DISTINCT"

    def visit_drop_index(self, drop: Any, **kw: Any) -> str:
        index = drop.element
        exists = "IF EXISTS " if drop.if_exists else ""
        return f"\nDROP INDEX {exists}{self._prepared_index_name(index, include_schema=True)}"

    # -- views and tables from queries --------------------------------------------------------------------------

    def visit_create_view(self, element: Any, **kw: Any) -> str:
        if element.materialized:
            raise UnsupportedError(
                f"materialized view {element.table.name!r}", "DSQL has none", "create a view, or fill a table yourself"
            )
        if element.temporary:
            raise UnsupportedError(f"temporary view {element.table.name!r}", "DSQL has none", "leave temporary out")
        return str(super().visit_create_view(element, **kw))

    def visit_create_table_as(self, element: Any, **kw: Any) -> str:
        raise UnsupportedError(
            f"CREATE TABLE {element.table.name} AS",
            "DSQL has none",
            "create the table, then INSERT … SELECT, at most 3,000 rows a transaction",
        )


def unique_constraint_name(compiler: Any, constraint: schema.UniqueConstraint) -> str:
    """The constraint's quoted name; if it has none, the one that PostgreSQL would give it."""
    given = compiler.preparer.format_constraint(constraint) if constraint.name is not None else None
    if given:
        return str(given)
    parts = [constraint.table.name, *(column.name for column in constraint.columns), "key"]
    return str(compiler.preparer.quote("_".join(parts)[: compiler.dialect.max_identifier_length]))


def _warn_of_comments(table: schema.Table) -> None:
    """Name the constraints whose comments ``create_all()`` leaves out."""
    for constraint in table.constraints:
        if constraint.comment is not None:
            util.warn(
                f"the comment of constraint {constraint.name!r} of table {table.fullname!r} is not set: AWS's "
                "dsql-lint refuses COMMENT ON CONSTRAINT; create_engine(…, constraint_comments=True) sets it anyway"
            )
