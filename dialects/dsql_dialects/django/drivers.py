"""The connector under Django: psycopg 3 if Django found it, else psycopg2."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql.psycopg_any import is_psycopg3

connector: Any
Cursor: Any  #: binds parameters on the client; lost autocommit statements are run again
ServerBindingCursor: Any  #: with ``OPTIONS["server_side_binding"]``

if is_psycopg3:
    from django.db.backends.postgresql.base import CursorMixin

    import dsql_connectors.psycopg as psycopg

    connector = psycopg
    Cursor = type("Cursor", (CursorMixin, psycopg.ClientCursor), {"__module__": __name__})
    ServerBindingCursor = type("ServerBindingCursor", (CursorMixin, psycopg.Cursor), {"__module__": __name__})
else:
    import dsql_connectors.psycopg2 as psycopg2

    connector = psycopg2
    Cursor = ServerBindingCursor = psycopg2.Cursor

__all__ = ["Cursor", "ServerBindingCursor", "connector", "is_psycopg3"]
