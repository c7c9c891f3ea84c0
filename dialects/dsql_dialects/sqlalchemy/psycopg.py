"""``aws_dsql+psycopg://``: psycopg 3, synchronous and asynchronous."""

from __future__ import annotations

from typing import Any

from sqlalchemy import util
from sqlalchemy.dialects.postgresql.psycopg import (
    PGDialect_psycopg,
    PGDialectAsync_psycopg,
    PGExecutionContext_psycopg,
)
from sqlalchemy.engine import URL

from dsql_dialects.sqlalchemy.base import DSQLDialect, DSQLExecutionContext


class DSQLExecutionContext_psycopg(DSQLExecutionContext, PGExecutionContext_psycopg):
    """One statement's execution by psycopg."""


class DSQLExecutionContextAsync_psycopg(DSQLExecutionContext_psycopg):
    """The same for asynchronous connections."""

    def create_server_side_cursor(self) -> Any:
        """An ordinary cursor, which reads the whole answer: a named one would need DECLARE CURSOR."""
        return self._dbapi_connection.cursor()


class DSQLDialect_psycopg(DSQLDialect, PGDialect_psycopg):
    """Aurora DSQL by psycopg."""

    driver = "psycopg"
    supports_statement_cache = True
    execution_ctx_cls = DSQLExecutionContext_psycopg

    def __init__(self, **kwargs: Any) -> None:
        # Looking for hstore would need a savepoint, and DSQL has no extensions.
        super().__init__(**{**kwargs, "use_native_hstore": False})

    @classmethod
    def import_dbapi(cls) -> Any:
        import dsql_connectors.psycopg as driver

        return driver

    @classmethod
    def get_async_dialect_cls(cls, url: URL) -> type[DSQLDialect]:
        return DSQLDialectAsync_psycopg

    def complete_connect_args(self, parameters: dict[str, Any]) -> dict[str, Any]:
        if self._psycopg_adapters_map:
            parameters["context"] = self._psycopg_adapters_map
        if self.client_encoding is not None:
            parameters["client_encoding"] = self.client_encoding
        return parameters

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        self._do_isolation_level(dbapi_connection, autocommit=level == "AUTOCOMMIT", isolation_level=None)


class DSQLDialectAsync_psycopg(DSQLDialect_psycopg, PGDialectAsync_psycopg):
    """Aurora DSQL by psycopg's asynchronous connections."""

    is_async = True
    supports_statement_cache = True
    supports_server_side_cursors = True  # so far that stream() works, which SQLAlchemy refuses otherwise
    execution_ctx_cls = DSQLExecutionContextAsync_psycopg

    @classmethod
    def import_dbapi(cls) -> Any:
        return PGDialectAsync_psycopg.import_dbapi()

    def complete_connect_args(self, parameters: dict[str, Any]) -> dict[str, Any]:
        from dsql_connectors.psycopg import AsyncConnection

        return {**super().complete_connect_args(parameters), "async_creator_fn": AsyncConnection.connect}

    def sleep(self, seconds: float) -> None:
        import asyncio

        util.await_only(asyncio.sleep(seconds))


dialect = DSQLDialect_psycopg
dialect_async = DSQLDialectAsync_psycopg
