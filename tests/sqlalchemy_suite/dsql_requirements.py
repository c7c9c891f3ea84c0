"""Which parts of SQLAlchemy's compliance suite Aurora DSQL can be asked for.

``ABSENT`` is all that is switched off, each with the refusal that DSQL answers with; everything else that
PostgreSQL can is switched on.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

#: Requirement: what DSQL says when it is tried.
ABSENT: dict[str, str] = {
    "create_table_as": "unsupported statement: CreateTableAs",
    "create_temp_table_as": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "temporary_tables": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "temporary_views": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "temp_table_names": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "temp_table_reflection": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "temp_table_reflect_indexes": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "temp_table_comment_reflection": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "has_temp_table": "TEMPORARY or TEMP table not supported for CREATE TABLE",
    "materialized_views": "unsupported statement: CreateTableAs (CREATE MATERIALIZED VIEW)",
    "materialized_views_reflect_pk": "unsupported statement: CreateTableAs (CREATE MATERIALIZED VIEW)",
    "savepoints": "unsupported transaction statement: SAVEPOINT",
    "two_phase_transactions": "unsupported transaction statement: PREPARE TRANSACTION",
    "array_type": "datatype text[] not supported (arrays exist in queries, not in columns)",
    "indexes_with_ascdesc": "specifying sort order not supported for index keys",
    "reflect_indexes_with_ascdesc": "specifying sort order not supported for index keys",
    "reflect_indexes_with_ascdesc_as_expression": "specifying sort order not supported for index keys",
    "column_collation_reflection": "COLLATE clause not supported",
    "order_by_collation": "COLLATE clause not supported",
    "computed_columns_virtual": "PostgreSQL 16 has stored generated columns only",
}

#: What PostgreSQL isn't either: properties of other databases that tests ask about.
FOREIGN: dict[str, str] = {
    "foreign_keys_reflect_as_index": "MySQL makes an index for a foreign key, PostgreSQL doesn't",
    "unique_index_reflect_as_unique_constraints": "PostgreSQL keeps unique indexes and unique constraints apart",
    "non_updating_cascade": "the database has ON UPDATE CASCADE",
    "emulated_lastrowid": "RETURNING makes it unnecessary",
    "emulated_lastrowid_even_with_sequences": "RETURNING makes it unnecessary",
    "dbapi_lastrowid": "RETURNING makes it unnecessary",
    "supports_lastrowid": "RETURNING makes it unnecessary",
    "fetch_percent": "PostgreSQL has no FETCH FIRST n PERCENT",
    "fetch_offset_with_options": "PostgreSQL has no FETCH FIRST n PERCENT",
    "repeated_remote_col_foreign_keys": "42830 foreign key referenced-columns list must not contain duplicates",
    "nvarchar_types": "PostgreSQL has no NVARCHAR",
    "legacy_unconditional_json_extract": "a property of SQLite and MySQL",
    "no_sequences": "the database has sequences",
}

#: What the suite takes for absent unless it is told, and DSQL has.
PRESENT = (
    "aggregate_order_by",
    "async_dialect",
    "autocommit",
    "boolean_col_expressions",
    "check_constraint_reflection",
    "comment_reflection",
    "comment_reflection_full_unicode",
    "computed_columns",
    "computed_columns_default_persisted",
    "computed_columns_reflect_persisted",
    "computed_columns_stored",
    "constraint_comment_reflection",
    "create_or_replace_view",
    "cross_schema_fk_reflection",
    "ctes",
    "ctes_on_dml",
    "ctes_with_update_delete",
    "ctes_with_values",
    "date_historic",
    "datetime_historic",
    "datetime_interval",
    "datetime_literals",
    "datetime_timezone",
    "datetime_timezone_historic",
    "default_schema_name_switch",
    "deferrable_fks",
    "delete_from",
    "except_",
    "expression_server_defaults",
    "fetch_expression",
    "fetch_first",
    "fetch_no_order_by",
    "fetch_ties",
    "fk_constraint_option_reflection_ondelete_noaction",
    "fk_constraint_option_reflection_ondelete_restrict",
    "fk_constraint_option_reflection_onupdate_restrict",
    "float_or_double_precision_behaves_generically",
    "foreign_key_constraint_name_reflection",
    "foreign_key_constraint_option_reflection_ondelete",
    "foreign_key_constraint_option_reflection_onupdate",
    "identity_columns",
    "identity_columns_standard",
    "implicit_default_schema",
    "index_ddl_if_exists",
    "index_reflects_included_columns",
    "indexes_check_column_order",
    "indexes_with_expressions",
    "infinity_floats",
    "inline_check_constraint_reflection",
    "intersect",
    "isolation_level",
    "json_type",
    "mod_operator_as_percent_sign",
    "nullsordering",
    "order_by_label_with_expression",
    "percent_schema_names",
    "precision_numerics_enotation_small",
    "precision_numerics_many_significant_digits",
    "precision_numerics_retains_significant_digits",
    "reflect_indexes_with_expressions",
    "reflect_tables_no_columns",
    "reflects_pk_names",
    "regexp_match",
    "regexp_replace",
    "repeated_column_foreign_keys",
    "schema_create_delete",
    "server_defaults",
    "skip_autocommit_rollback",
    "supports_bitwise_and",
    "supports_bitwise_not",
    "supports_bitwise_or",
    "supports_bitwise_shift",
    "supports_bitwise_xor",
    "supports_distinct_on",
    "table_ddl_if_exists",
    "table_value_constructor",
    "time_timezone",
    "timestamp_microseconds",
    "tuple_in",
    "unicode_ddl",
    "unique_constraints_reflect_as_index",
    "update_from",
    "uuid_data_type",
    "views",
    "window_functions",
    "window_range",
    "window_range_non_numeric",
    "window_range_numeric",
)

#: Single tests that no requirement covers: why DSQL can't be asked for them.
TESTS_ABSENT: dict[str, str] = {
    "CompositeKeyReflectionTest::test_fk_repeated_source_cols_reported_by_inspector": (
        "with SQLAlchemy 2.0 it makes two tables as text: multiple ddl statements not supported in a transaction"
    ),
    "IsolationLevelTest::test_dialect_user_setting_is_restored": (
        "it needs a second level: Unsupported isolation level: SERIALIZABLE"
    ),
    "TableViaSelectTest::test_without_metadata[plain0]": "unsupported statement: CreateTableAs",
    "TableViaSelectTest::test_without_metadata[plain1]": "unsupported statement: CreateTableAs",
    "TableViaSelectTest::test_without_metadata[use_schema0]": "unsupported statement: CreateTableAs",
}


def _absent(reason: str) -> Any:
    return property(lambda self: exclusions.skip_if(exclusions.BooleanPredicate(True, reason)))


class DSQLRequirements(SuiteRequirements):
    """The suite's questions about Aurora DSQL, answered."""

    @property
    def json_deserializer_binary(self) -> Any:
        """What a deserializer of the application's is given: psycopg hands over bytes, until SQLAlchemy 2.1."""
        old = sqlalchemy.__version__.startswith("2.0.")
        return exclusions.only_if(lambda config: old and config.db.dialect.driver == "psycopg")


if "get_multi_table_options" in vars(PGDialect):
    PRESENT += ("reflect_table_options",)
else:
    FOREIGN["reflect_table_options"] = "SQLAlchemy 2.0 reflects no options of PostgreSQL's tables"

for _name in PRESENT:
    setattr(DSQLRequirements, _name, property(lambda self: exclusions.open()))
for _name, _reason in {**ABSENT, **FOREIGN}.items():
    setattr(DSQLRequirements, _name, _absent(_reason))
