"""What Aurora DSQL has and hasn't, in Django's terms. A deviation from PostgreSQL is one line with its reason."""

from __future__ import annotations

from django.db.backends.postgresql.features import DatabaseFeatures as PostgresqlFeatures


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
    def uses_savepoints(self) -> bool:
        """SAVEPOINT is refused. For the blocks of test cases, which is all that asks for it, isolation.py stands in."""
        return self.connection.isolation is not None
