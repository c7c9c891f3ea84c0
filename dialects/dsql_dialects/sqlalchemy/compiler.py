"""Statements and expressions: PostgreSQL's, less what DSQL refuses."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.postgresql.base import PGCompiler

from dsql_dialects.sqlalchemy.errors import UnsupportedError


class DSQLCompiler(PGCompiler):
    """Compiles queries and DML."""

    def for_update_clause(self, select: Any, **kw: Any) -> str:
        lock = select._for_update_arg
        if lock.read and not lock.key_share:
            raise UnsupportedError(
                "with_for_update(read=True)",
                "DSQL has no FOR SHARE",
                "use with_for_update(read=True, key_share=True) or with_for_update()",
            )
        if lock.key_share and not lock.read:
            raise UnsupportedError(
                "with_for_update(key_share=True)",
                "DSQL has no FOR NO KEY UPDATE",
                "use with_for_update(), or add read=True for FOR KEY SHARE",
            )
        return str(super().for_update_clause(select, **kw))

    def visit_tablesample(self, tablesample: Any, asfrom: bool = False, **kw: Any) -> str:
        raise UnsupportedError(
            "tablesample()", "DSQL has no TABLESAMPLE", "filter by random() or by a range of a random key"
        )
