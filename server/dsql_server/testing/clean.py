"""Bring a database back to empty: drop every object that a user made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import psycopg


class _Kind(NamedTuple):
    statement: str  #: with the object's quoted name to fill in
    query: str  #: names what is there now, one quoted name a row


_USER_SCHEMA = "n.nspname NOT IN ('sys', 'information_schema') AND n.nspname !~ '^pg_'"


def _relations(kinds: str) -> str:
    return (
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) FROM pg_class c"
        f" JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ({kinds}) AND {_USER_SCHEMA} ORDER BY 1"
    )


#: In this order nothing is dropped before what depends on it, but for what CASCADE takes along.
_KINDS = (
    _Kind("DROP VIEW IF EXISTS {} CASCADE", _relations("'v'")),
    _Kind("DROP TABLE IF EXISTS {} CASCADE", _relations("'r'")),
    _Kind("DROP SEQUENCE IF EXISTS {} CASCADE", _relations("'S'")),
    _Kind(
        "DROP FUNCTION IF EXISTS {} CASCADE",
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(p.proname) || '('"
        " || pg_get_function_identity_arguments(p.oid) || ')' FROM pg_proc p"
        f" JOIN pg_namespace n ON n.oid = p.pronamespace WHERE p.prokind = 'f' AND {_USER_SCHEMA} ORDER BY 1",
    ),
    _Kind(
        "DROP DOMAIN IF EXISTS {} CASCADE",
        "SELECT quote_ident(n.nspname) || '.' || quote_ident(t.typname) FROM pg_type t"
        f" JOIN pg_namespace n ON n.oid = t.typnamespace WHERE t.typtype = 'd' AND {_USER_SCHEMA} ORDER BY 1",
    ),
    _Kind(
        "DROP SCHEMA IF EXISTS {} CASCADE",
        f"SELECT quote_ident(n.nspname) FROM pg_namespace n WHERE {_USER_SCHEMA} AND n.nspname <> 'public' ORDER BY 1",
    ),
)


def drop_user_objects(connection: psycopg.Connection[Any]) -> None:
    """Drop all views, tables, sequences, functions, domains and schemas, one statement (one transaction) each.

    Roles and grants stay: they belong to the cluster.

    :param connection: of a role that owns everything, in autocommit mode.
    """
    assert connection.autocommit, "DSQL takes one DDL statement a transaction"
    for kind in _KINDS:
        for (name,) in connection.execute(kind.query).fetchall():
            # Text, not bytes with parameters: DDL takes none, and the name is quoted by the server itself.
            connection.execute(kind.statement.format(name))
