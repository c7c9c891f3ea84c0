"""The connector under Django: psycopg 3 if Django found it, else psycopg2."""

from __future__ import annotations

from typing import Any

from django.db.backends.postgresql.psycopg_any import is_psycopg3

from dsql_connectors.core.retry import RetryLoop, is_occ_error
from dsql_connectors.core.transaction import run, statement_steps

connector: Any
Cursor: Any  #: binds parameters on the client; lost autocommit statements are run again
ServerBindingCursor: Any  #: with ``OPTIONS["server_side_binding"]``


class FirstStatementMixin:
    """A cursor that begins a transaction anew when its first statement loses.

    Django's transactions begin with their first statement. One that meets a catalog changed since (OC001) has done
    nothing yet, so that a new transaction stands for the old one. Whatever comes later only the application can replay.
    """

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As the driver's."""
        connection: Any = self.connection  # type: ignore[attr-defined]
        begins = not connection.autocommit and not connection._dsql_in_transaction()
        try:
            return super().execute(query, *args, **kwargs)  # type: ignore[misc]
        except connector.DatabaseError as error:
            if not begins or connection._dsql_attempt_held or not is_occ_error(error):
                raise
            lost = error

        def again() -> Any:
            connection.rollback()
            return super(FirstStatementMixin, self).execute(query, *args, **kwargs)  # type: ignore[misc]

        loop = RetryLoop(connection._dsql_policy, DRIVER_ERRORS)
        return run(statement_steps(loop, lost, again, lambda: not connection.closed))


class WatchedMixin:
    """A cursor that tells a test run's isolation what it executes."""

    _dsql_isolation: Any  #: dsql_dialects.django.isolation.Isolation
    rowcount: int

    def execute(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As the driver's."""
        self._dsql_tell(query)
        result = super().execute(query, *args, **kwargs)  # type: ignore[misc]
        self._dsql_isolation.changed(self.rowcount)
        return result

    def executemany(self, query: Any, *args: Any, **kwargs: Any) -> Any:
        """As the driver's."""
        self._dsql_tell(query)
        result = super().executemany(query, *args, **kwargs)  # type: ignore[misc]
        self._dsql_isolation.changed(self.rowcount)
        return result

    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Any:
        """As psycopg's."""
        self._dsql_tell(statement)
        return super().copy(statement, *args, **kwargs)  # type: ignore[misc]

    def copy_expert(self, sql: Any, *args: Any, **kwargs: Any) -> Any:
        """As psycopg2's."""
        self._dsql_tell(sql)
        return super().copy_expert(sql, *args, **kwargs)  # type: ignore[misc]

    def _dsql_tell(self, query: Any) -> None:
        text = query.as_string(self) if hasattr(query, "as_string") else query
        self._dsql_isolation.saw(text.decode() if isinstance(text, bytes) else text)


def watched(cursor_factory: Any, isolation: Any) -> Any:
    """``cursor_factory`` for cursors that tell ``isolation`` what they execute."""
    return type(
        cursor_factory.__name__, (WatchedMixin, cursor_factory), {"_dsql_isolation": isolation, "__module__": __name__}
    )


if is_psycopg3:
    from django.db.backends.postgresql.base import CursorMixin

    import dsql_connectors.psycopg as psycopg
    from dsql_connectors.psycopg.failures import ERRORS as DRIVER_ERRORS

    connector = psycopg
    Cursor = type("Cursor", (FirstStatementMixin, CursorMixin, psycopg.ClientCursor), {"__module__": __name__})
    ServerBindingCursor = type(
        "ServerBindingCursor", (FirstStatementMixin, CursorMixin, psycopg.Cursor), {"__module__": __name__}
    )
else:
    import dsql_connectors.psycopg2 as psycopg2
    from dsql_connectors.psycopg2.failures import ERRORS as DRIVER_ERRORS

    connector = psycopg2
    Cursor = ServerBindingCursor = type("Cursor", (FirstStatementMixin, psycopg2.Cursor), {"__module__": __name__})

__all__ = ["Cursor", "ServerBindingCursor", "connector", "is_psycopg3", "watched"]
