"""Compilers for queries whose functions Django writes in a way that DSQL hasn't got."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from django.db import NotSupportedError
from django.db.backends.postgresql.operations import DatabaseOperations as PostgresqlOperations
from django.db.models import BinaryField
from django.db.models.functions import SHA1
from django.db.models.functions.text import PostgreSQLSHAMixin

#: Django's for PostgreSQL has compilers of its own in some versions, the general ones in others.
_django: Any = import_module(PostgresqlOperations.compiler_module)


class HashesMixin:
    """``SHA224`` to ``SHA512`` by PostgreSQL's own functions: Django asks the extension pgcrypto."""

    def compile(self, node: Any) -> Any:
        """As Django's.

        :raises NotSupportedError: for SHA1, which only pgcrypto has.
        """
        if not isinstance(node, PostgreSQLSHAMixin):
            return super().compile(node)  # type: ignore[misc]
        if isinstance(node, SHA1):
            raise NotSupportedError("SHA1() needs pgcrypto, and Aurora DSQL has no extensions: use SHA256()")
        function: Any = node
        (source,) = function.get_source_expressions()
        is_bytes = isinstance(source._output_field_or_none, BinaryField)
        value = "%(expressions)s" if is_bytes else "CONVERT_TO(%(expressions)s, 'UTF8')"
        return function.as_sql(
            self,
            self.connection,  # type: ignore[attr-defined]
            function=function.function.lower(),
            template=f"ENCODE(%(function)s({value}), 'hex')",
        )


class SQLCompiler(HashesMixin, _django.SQLCompiler):
    """For SELECT."""


class SQLInsertCompiler(HashesMixin, _django.SQLInsertCompiler):
    """For INSERT."""


class SQLDeleteCompiler(HashesMixin, _django.SQLDeleteCompiler):
    """For DELETE."""


class SQLUpdateCompiler(HashesMixin, _django.SQLUpdateCompiler):
    """For UPDATE."""


class SQLAggregateCompiler(HashesMixin, _django.SQLAggregateCompiler):
    """For aggregates over a query."""
