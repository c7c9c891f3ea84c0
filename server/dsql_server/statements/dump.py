"""What pg_dump may run beyond what Aurora DSQL takes from every client.

``pg_dump -s`` shows a schema as nothing else does, but it opens with settings and locks that Aurora DSQL refuses to
everybody. They change nothing that it reads in its one transaction, so in its sessions they are answered without being
run; its prepared catalog queries do run. Everything else is refused to it as to others.
"""

from __future__ import annotations

from dataclasses import replace

from dsql_server.statements.model import Statement, StatementKind

#: How a client says that it is pg_dump.
DUMP_APPLICATION = "pg_dump"

_WITHOUT_EFFECT = frozenset(
    {
        "idle_in_transaction_session_timeout",
        "lock_timeout",
        "row_security",
        "statement_timeout",
        "synchronize_seqscans",
        "transaction",
        "transaction_timeout",
    }
)
#: Keeps the session from views other than PostgreSQL's own, some of which have given way to Aurora DSQL's.
_RESTRICTING = (
    "SELECT set_config(name, 'view, foreign-table', false) "
    "FROM pg_settings WHERE name = 'restrict_nonsystem_relation_kind'"
)
#: What a server without that parameter answers.
_NOT_RESTRICTING = "SELECT NULL::text AS set_config WHERE false"
_CATALOG_SCHEMA = "pg_catalog"
_CATALOG_PREFIX = "pg_"


def for_pg_dump(statement: Statement) -> Statement:
    """The statement as a session of pg_dump runs it."""
    if len(statement.refusals) != 1:
        return statement
    if statement.text == _RESTRICTING:
        return replace(statement, refusals=(), engine_sql=_NOT_RESTRICTING)
    unsupported = statement.refusals[0].message.removeprefix("unsupported statement: ")
    name = statement.parameter.name if statement.parameter is not None else "transaction"
    if statement.kind is StatementKind.SET and name in _WITHOUT_EFFECT:
        return replace(statement, refusals=(), engine_sql="")
    if unsupported == "Lock":
        return replace(statement, refusals=(), engine_sql="", tag="LOCK TABLE")
    if unsupported in ("Prepare", "Execute") and not statement.is_dml and _reads_catalog(statement):
        # Runs like SHOW: it needs no stored rows.
        return replace(statement, refusals=(), kind=StatementKind.SHOW)
    return statement


def _reads_catalog(statement: Statement) -> bool:
    return all(
        schema == _CATALOG_SCHEMA or (schema is None and name.startswith(_CATALOG_PREFIX))
        for schema, name in statement.relations
    )
