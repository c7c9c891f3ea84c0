"""Which parts of SQLAlchemy's compliance suite Aurora DSQL can be asked for.

``ABSENT`` is all that is switched off, each with the refusal that DSQL answers with; everything else that
PostgreSQL can is switched on.
"""

from __future__ import annotations

from typing import Any

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
    "reflect_table_options": "DSQL's tables have no options: WITH clause not supported for CREATE TABLE",
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
    "nvarchar_types": "PostgreSQL has no NVARCHAR",
    "legacy_unconditional_json_extract": "a property of SQLite and MySQL",
    "no_sequences": "the database has sequences",
    "json_deserializer_binary": "the drivers hand over text",
}

#: What the suite takes for absent unless it is told, and DSQL has.
PRESENT = """
    table_ddl_if_exists index_ddl_if_exists uuid_data_type unique_constraints_reflect_as_index
    table_value_constructor deferrable_fks repeated_column_foreign_keys repeated_remote_col_foreign_keys
    boolean_col_expressions nullsordering intersect except_ window_functions window_range
    window_range_numeric window_range_non_numeric ctes ctes_with_update_delete ctes_with_values ctes_on_dml
    tuple_in views cross_schema_fk_reflection foreign_key_constraint_name_reflection implicit_default_schema
    default_schema_name_switch reflects_pk_names reflect_tables_no_columns comment_reflection
    comment_reflection_full_unicode constraint_comment_reflection schema_create_delete
    foreign_key_constraint_option_reflection_ondelete fk_constraint_option_reflection_ondelete_restrict
    fk_constraint_option_reflection_ondelete_noaction foreign_key_constraint_option_reflection_onupdate
    fk_constraint_option_reflection_onupdate_restrict create_or_replace_view index_reflects_included_columns
    indexes_check_column_order indexes_with_expressions reflect_indexes_with_expressions
    inline_check_constraint_reflection check_constraint_reflection unicode_ddl datetime_interval
    datetime_literals datetime_timezone time_timezone timestamp_microseconds datetime_historic
    datetime_timezone_historic date_historic autocommit skip_autocommit_rollback isolation_level json_type
    precision_numerics_enotation_small precision_numerics_many_significant_digits server_defaults
    expression_server_defaults aggregate_order_by precision_numerics_retains_significant_digits
    infinity_floats float_or_double_precision_behaves_generically update_from delete_from
    mod_operator_as_percent_sign percent_schema_names order_by_label_with_expression async_dialect
    computed_columns computed_columns_stored computed_columns_default_persisted
    computed_columns_reflect_persisted supports_distinct_on identity_columns identity_columns_standard
    regexp_match regexp_replace fetch_first fetch_ties fetch_no_order_by fetch_expression
    supports_bitwise_or supports_bitwise_and supports_bitwise_not supports_bitwise_xor
    supports_bitwise_shift
""".split()


def _absent(reason: str) -> Any:
    return property(lambda self: exclusions.skip_if(exclusions.BooleanPredicate(True, reason)))


class DSQLRequirements(SuiteRequirements):
    """The suite's questions about Aurora DSQL, answered."""


for _name in PRESENT:
    setattr(DSQLRequirements, _name, property(lambda self: exclusions.open()))
for _name, _reason in {**ABSENT, **FOREIGN}.items():
    setattr(DSQLRequirements, _name, _absent(_reason))
