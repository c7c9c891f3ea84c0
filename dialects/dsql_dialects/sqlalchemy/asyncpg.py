"""``aws_dsql+asyncpg://``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import util
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_dbapi,
    PGDialect_asyncpg,
    PGExecutionContext_asyncpg,
)

from dsql_dialects.sqlalchemy.base import DSQLDialect, DSQLExecutionContext


class DSQLExecutionContext_asyncpg(DSQLExecutionContext, PGExecutionContext_asyncpg):
    """One statement's execution by asyncpg."""


class DSQLDialect_asyncpg(DSQLDialect, PGDialect_asyncpg):
    """Aurora DSQL by asyncpg."""

    driver = "asyncpg"
    supports_statement_cache = True
    supports_server_side_cursors = True  # the protocol's portals, where libpq's drivers would DECLARE CURSOR
    supports_sane_multi_rowcount = False
    execution_ctx_cls = DSQLExecutionContext_asyncpg

    #: SQLAlchemy's own, beside asyncpg's and the connector's.
    driver_parameters = frozenset(
        {
            "prepared_statement_cache_size",
            "prepared_statement_name_func",
            "timeout",
            "command_timeout",
            "statement_cache_size",
            "max_cached_statement_lifetime",
            "max_cacheable_statement_size",
            "ssl",
            "direct_tls",
        }
    )

    @classmethod
    def import_dbapi(cls) -> Any:
        import asyncpg

        import dsql_connectors.asyncpg  # noqa: F401 - says which extra to install if asyncpg is missing

        return AsyncAdapt_asyncpg_dbapi(asyncpg)

    def complete_connect_args(self, parameters: dict[str, Any]) -> dict[str, Any]:
        from dsql_connectors.asyncpg import connect

        if "prepared_statement_cache_size" in parameters:
            parameters["prepared_statement_cache_size"] = int(parameters["prepared_statement_cache_size"])
        return {**parameters, "async_creator_fn": connect}

    def set_isolation_level(self, dbapi_connection: Any, level: str) -> None:
        dbapi_connection.set_isolation_level("autocommit" if level == "AUTOCOMMIT" else None)

    def sleep(self, seconds: float) -> None:
        import asyncio

        util.await_only(asyncio.sleep(seconds))


dialect = DSQLDialect_asyncpg
