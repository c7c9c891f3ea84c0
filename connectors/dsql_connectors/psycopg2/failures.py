"""The psycopg2 classes under which the connector's errors are raised."""

from __future__ import annotations

import psycopg2.errors

from dsql_connectors.core.errors import DriverErrors

ERRORS = DriverErrors(
    operational=psycopg2.OperationalError,
    interface=psycopg2.InterfaceError,
    serialization=psycopg2.errors.SerializationFailure,
)
