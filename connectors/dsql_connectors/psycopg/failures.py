"""The psycopg classes under which the connector's errors are raised."""

from __future__ import annotations

import psycopg

from dsql_connectors.core.errors import DriverErrors

ERRORS = DriverErrors(
    operational=psycopg.OperationalError,
    interface=psycopg.InterfaceError,
    serialization=psycopg.errors.SerializationFailure,
)
