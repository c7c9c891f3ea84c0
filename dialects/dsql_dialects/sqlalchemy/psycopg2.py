"""``aws_dsql+psycopg2://``."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2, PGExecutionContext_psycopg2

from dsql_dialects.sqlalchemy.base import DSQLDialect, DSQLExecutionContext


class DSQLExecutionContext_psycopg2(DSQLExecutionContext, PGExecutionContext_psycopg2):
    """One statement's execution by psycopg2."""


class DSQLDialect_psycopg2(DSQLDialect, PGDialect_psycopg2):
    """Aurora DSQL by psycopg2."""

    driver = "psycopg2"
    supports_statement_cache = True
    execution_ctx_cls = DSQLExecutionContext_psycopg2

    def __init__(self, **kwargs: Any) -> None:
        # Looking for hstore would cost a query a connection, and DSQL has no extensions.
        super().__init__(**{**kwargs, "use_native_hstore": False})

    @classmethod
    def import_dbapi(cls) -> Any:
        import dsql_connectors.psycopg2 as driver

        return driver

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        dbapi_connection.autocommit = level == "AUTOCOMMIT"


dialect = DSQLDialect_psycopg2
