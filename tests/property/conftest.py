"""The plain PostgreSQL that answers are compared with."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from dsql_server.testing.plain_postgresql import plain_postgresql


@pytest.fixture(scope="module")
def reference() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with plain_postgresql() as connection:
        yield connection
