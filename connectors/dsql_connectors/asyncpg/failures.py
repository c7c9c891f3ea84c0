"""The asyncpg classes under which the connector's errors are raised. asyncpg has no OperationalError: the nearest is
PostgresConnectionError."""

from __future__ import annotations

import asyncpg

from dsql_connectors.core.errors import DriverErrors

ERRORS = DriverErrors(
    operational=asyncpg.PostgresConnectionError,
    interface=asyncpg.InterfaceError,
    serialization=asyncpg.SerializationError,
)
