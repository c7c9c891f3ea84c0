"""What tests with several sessions are written with."""

from __future__ import annotations

from typing import Any

import psycopg


class Session:
    """An autocommit connection with short ways to what a statement answers."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.connection = connection

    def run(self, sql: str, *parameters: object) -> psycopg.Cursor:
        return self.connection.execute(sql.encode(), parameters or None)

    def value(self, sql: str, *parameters: object) -> Any:
        row = self.run(sql, *parameters).fetchone()
        assert row is not None, f"no row from {sql}"
        return row[0]

    def column(self, sql: str, *parameters: object) -> list[Any]:
        return [row[0] for row in self.run(sql, *parameters)]

    def rows(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        return self.run(sql, *parameters).fetchall()

    def wait_for(self, job_id: str) -> bool:
        """Whether the job completed."""
        return bool(self.value("CALL sys.wait_for_job(%s)", job_id))

    def finish(self, sql: str) -> bool:
        """Run a statement that answers a job's id, and wait for the job."""
        return self.wait_for(self.value(sql))
