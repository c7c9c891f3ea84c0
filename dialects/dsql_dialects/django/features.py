"""What Aurora DSQL has and hasn't, in Django's terms. A deviation from PostgreSQL is one line with its reason."""

from __future__ import annotations

import sys

from django.db.backends.postgresql.features import DatabaseFeatures as PostgresqlFeatures
from django.utils.functional import cached_property

#: Tests of Django's own suite that can't run here, by reason.
SKIPPED_TESTS = {
    "Counts on a writer that waits for a lock; here nobody waits, and the later COMMIT is refused.": {
        "get_or_create.tests.UpdateOrCreateTransactionTests.test_creation_in_transaction",
        "get_or_create.tests.UpdateOrCreateTransactionTests.test_updates_in_transaction",
        "delete_regress.tests.DeleteLockingTest.test_concurrent_delete",
        "select_for_update.tests.SelectForUpdateTests.test_raw_lock_not_available",
    },
    "There are no cursors on the server's side.": {
        f"backends.postgresql.test_server_side_cursors.ServerSideCursorsPostgres.test_{name}"
        for name in (
            "server_side_binding",
            "server_side_cursor",
            "server_side_cursor_many_cursors",
            "server_side_cursors_setting",
            "values",
            "values_list",
            "values_list_fields_not_equal_to_names",
            "values_list_flat",
        )
    },
    "Leaves a dangling reference to the end of its test; a view of the test case's client has committed by then.": {
        "auth_tests.test_views.UUIDUserTests.test_admin_password_change",
    },
    "A foreign key to an AutoField is bigint, as that is; the test wants integer and smallint.": {
        # They inherit the test from those of integer fields, so that it can't be said to fail.
        "model_fields.test_autofield.AutoFieldTests.test_rel_db_type",
        "model_fields.test_autofield.SmallAutoFieldTests.test_rel_db_type",
    },
}

_SCHEMA = "schema.tests.SchemaTests.test_"

#: Tests of Django's own suite that fail here, by reason.
FAILING_TESTS = {
    "An index for LIKE isn't needed in the C collation; the test looks for it.": {
        *(
            f"{_SCHEMA}{name}"
            for name in (
                "add_indexed_charfield",
                "add_unique_charfield",
                "alter_field_add_db_index_to_charfield_with_unique",
                "alter_field_add_index_to_charfield",
                "alter_field_add_index_to_textfield",
                "alter_field_add_unique_to_charfield",
                "alter_field_add_unique_to_charfield_with_db_index",
                "alter_field_remove_unique_and_db_index_from_charfield",
                "alter_field_swap_unique_and_db_index_with_charfield",
                "indexed_charfield_to_textfield",
            )
        ),
        "indexes.tests.SchemaIndexesPostgreSQLTests.test_text_indexes",
    },
    "A foreign key to an AutoField is bigint, as that is; the test wants integer.": {
        f"{_SCHEMA}{name}"
        for name in (
            "alter_fk",
            "alter_fk_to_o2o",
            "alter_o2o_to_fk",
            "autofield_to_o2o",
            "m2m",
            "m2m_create",
            "m2m_create_custom",
            "m2m_create_inherited",
            "m2m_create_through",
            "m2m_create_through_custom",
            "m2m_create_through_inherited",
            "m2m_custom",
            "m2m_inherited",
        )
    },
    "A type changes in several statements; the test counts one.": {
        f"{_SCHEMA}unique_and_reverse_m2m",
        f"{_SCHEMA}unique_no_unnecessary_fk_drops",
    },
    "Arrays can't be stored.": {
        f"{_SCHEMA}alter_array_field_decrease_base_field_length",
        f"{_SCHEMA}alter_array_field_decrease_nested_base_field_length",
        f"{_SCHEMA}alter_field_with_custom_db_type",
    },
    "A key can't be jsonb; KeyTextTransform makes one of text.": {f"{_SCHEMA}func_index_json_key_transform"},
    "A savepoint in the middle of a transaction: SAVEPOINT is refused.": {
        f"transaction_hooks.tests.TestConnectionOnCommit.test_{name}"
        for name in (
            "discards_hooks_from_rolled_back_savepoint",
            "inner_savepoint_does_not_affect_outer",
            "inner_savepoint_rolled_back_with_outer",
        )
    },
    "DISTINCT ON keeps any of the rows without an ORDER BY; the test wants the one that was inserted first.": {
        "distinct_on_fields.tests.DistinctOnTests.test_transform",
    },
    "TRUNCATE is refused; flush deletes.": {
        f"backends.postgresql.test_operations.PostgreSQLOperationsTests.test_{name}"
        for name in (
            "sql_flush",
            "sql_flush_allow_cascade",
            "sql_flush_sequences",
            "sql_flush_sequences_allow_cascade",
        )
    },
    "SET ROLE is refused.": {"backends.postgresql.tests.Tests.test_connect_role"},
    "There are no operator classes.": {
        f"indexes.tests.SchemaIndexesPostgreSQLTests.test_ops_class{name}"
        for name in (
            "",
            "_columns_lists_sql",
            "_descending",
            "_descending_columns_list_sql",
            "_descending_partial",
            "_include",
            "_include_tablespace",
            "_multiple_columns",
            "_partial",
            "_partial_tablespace",
        )
    },
    "There are no extensions, partitions or foreign tables.": {
        "inspectdb.tests.InspectDBTransactionalTests.test_foreign_data_wrapper",
        "inspectdb.tests.InspectDBTransactionalTests.test_include_partitions",
    },
    "The test's own SQL makes an index without ASYNC.": {
        "inspectdb.tests.InspectDBTestCase.test_unsupported_unique_together",
    },
    "There is no pgcrypto, which alone has SHA1.": {
        "db_functions.text.test_sha1.SHA1Tests.test_basic",
        "db_functions.text.test_sha1.SHA1Tests.test_transform",
    },
    "There is no type serial.": {
        f"{_SCHEMA}alter_serial_auto_field_to_bigautofield",
        "backends.postgresql.test_introspection.DatabaseSequenceTests.test_get_sequences_old_serial",
    },
    "There is one database, and no other to fall back on.": {"backends.postgresql.tests.Tests.test_nodb_cursor"},
    "The cursor is ours: it runs lost autocommit statements again.": {
        "backends.postgresql.tests.Tests.test_connect_server_side_binding",
    },
}


def _asked_by_test_case() -> bool:
    """Whether a feature is read by Django's TestCase, rather than for a test that needs the feature itself."""
    from django.test import testcases

    asks = getattr(testcases, "connections_support_savepoints", None)
    expression = sys._getframe(2)  # that of a generator in the function
    return asks is not None and expression.f_back is not None and expression.f_back.f_code is asks.__code__


class DatabaseFeatures(PostgresqlFeatures):
    """Features of Aurora DSQL."""

    can_release_savepoints = False
    # A transaction takes one DDL statement, and no DML beside it.
    can_rollback_ddl = False
    # SELECT … FOR UPDATE and FOR KEY SHARE only; nobody ever waits for a lock.
    has_select_for_update_nowait = False
    has_select_for_update_skip_locked = False
    has_select_for_no_key_update = False
    # Only the C collation.
    supports_collation_on_charfield = False
    supports_collation_on_textfield = False
    test_collations = {"deterministic": None, "non_default": None, "swedish_ci": None, "virtual": None}
    # No TABLESPACE.
    supports_tablespaces = False
    # No index keys in DESC order.
    supports_index_column_ordering = False
    # Only foreign keys are deferrable.
    supports_deferrable_unique_constraints = False
    # A test run gets a schema, not a database; it can't be copied.
    can_clone_databases = True
    # No materialized views.
    can_introspect_materialized_views = False
    # No stored procedures, no PL/pgSQL.
    create_test_procedure_without_params_sql = None
    create_test_procedure_with_int_param_sql = None

    @property
    def introspected_field_types(self) -> dict[str, str]:
        """Keys are bigint identities, and addresses are text."""
        return {
            **super().introspected_field_types,
            "AutoField": "BigAutoField",
            "SmallAutoField": "BigAutoField",
            "GenericIPAddressField": "CharField",
        }

    @property
    def uses_savepoints(self) -> bool:
        """False: SAVEPOINT is refused. To ``TestCase``, which undoes tests by them, isolation.py stands in."""
        return self.connection.isolation is not None and _asked_by_test_case()

    @cached_property
    def django_test_skips(self) -> dict[str, set[str]]:
        """Tests of Django's own suite that can't run, by reason."""
        skips: dict[str, set[str]] = {**super().django_test_skips}
        for reason, names in SKIPPED_TESTS.items():
            skips[reason] = skips.get(reason, set()) | names
        return skips

    @cached_property
    def django_test_expected_failures(self) -> set[str]:
        """Tests of Django's own suite that fail; see FAILING_TESTS for the reasons."""
        return set(super().django_test_expected_failures).union(*FAILING_TESTS.values())
