"""Engines from the connection strings that the connectors take."""

from __future__ import annotations

from typing import Any

import sqlalchemy
from sqlalchemy.engine import URL, Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.ext.asyncio import create_async_engine as _create_async_engine

from dsql_connectors.core.conninfo import parse_conninfo
from dsql_connectors.core.errors import ConninfoError
from dsql_connectors.core.parameters import canonical_name

SCHEME = "aws-dsql"
DRIVERS = ("psycopg", "psycopg2", "asyncpg")

_PORT_MAX = 65535


def make_url(conninfo: str | URL) -> URL:
    """SQLAlchemy's URL for a connection string: ``aws-dsql://admin@<endpoint>/postgres``, with ``+asyncpg`` or another
    driver after the scheme, or anything else that the connectors take.

    What already is SQLAlchemy's (``aws_dsql+psycopg://…``) stays as it is.

    :raises ConninfoError: as the connectors raise it, for a string that can't be read.
    """
    if isinstance(conninfo, URL):
        return conninfo
    scheme, separator, rest = conninfo.partition("://")
    if separator and ("_" in scheme or scheme.startswith("auroradsql")):
        return sqlalchemy.make_url(conninfo)
    name, plus, driver = scheme.partition("+")
    if plus and name == SCHEME:
        if driver not in DRIVERS:
            raise ConninfoError(f"unknown driver {driver!r} in the URL; one of {', '.join(DRIVERS)}")
        conninfo = f"{name}://{rest}"
    else:
        driver = DRIVERS[0]
    found = {canonical_name(parameter): value for parameter, value in parse_conninfo(conninfo).items()}
    port = found.pop("port", None)
    if port is not None and not (port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX):
        raise ConninfoError(f"port {port!r} is not a number between 1 and {_PORT_MAX}")
    return URL.create(
        f"aws_dsql+{driver}",
        username=found.pop("user", None),
        password=found.pop("password", None),
        host=found.pop("host", None),
        port=int(port) if port else None,
        database=found.pop("dbname", None),
        query=found,
    )


def create_engine(conninfo: str | URL, **options: Any) -> Engine:
    """``sqlalchemy.create_engine`` for every connection string of the connectors; see :func:`make_url`."""
    return sqlalchemy.create_engine(make_url(conninfo), **options)


def create_async_engine(conninfo: str | URL, **options: Any) -> AsyncEngine:
    """``sqlalchemy.ext.asyncio.create_async_engine`` for every connection string of the connectors."""
    return _create_async_engine(make_url(conninfo), **options)
