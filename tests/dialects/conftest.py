"""Engines on the session's cluster, one for each driver."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sqlalchemy", reason="the dialect's tests need SQLAlchemy")

from sqlalchemy import Engine, event
from sqlalchemy.ext.asyncio import AsyncEngine

from dsql_dialects.sqlalchemy import create_async_engine, create_engine


def with_driver(url: str, driver: str) -> str:
    """The connectors' URL with a driver after its scheme."""
    return url.replace("aws-dsql://", f"aws-dsql+{driver}://", 1)


@pytest.fixture
def make_engine(dsql_url: str) -> Iterator[Callable[..., Engine]]:
    """Makes synchronous engines, and disposes of them."""
    made: list[Engine] = []

    def make(driver: str = "psycopg", **options: Any) -> Engine:
        made.append(create_engine(with_driver(dsql_url, driver), **options))
        return made[-1]

    yield make
    for engine in made:
        engine.dispose()


@pytest.fixture
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine with the default driver."""
    return make_engine()


@pytest.fixture
def make_async_engine(dsql_url: str) -> Callable[..., AsyncEngine]:
    """Makes asynchronous engines; whoever asks for one disposes of it in its own event loop."""

    def make(driver: str = "asyncpg", **options: Any) -> AsyncEngine:
        return create_async_engine(with_driver(dsql_url, driver), **options)

    return make


class Linter:
    """Collects statements and has AWS's linter look at them."""

    def __init__(self, program: str) -> None:
        self.program = program
        self.statements: list[str] = []

    def listen(self, engine: Engine) -> None:
        """Collect all definitions that the engine executes."""

        def note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            if context is not None and context.isddl:
                self.statements.append(statement)

        event.listen(engine, "before_cursor_execute", note)

    def problems(self) -> str:
        """What the linter says; empty if it has nothing to say."""
        script = "".join(f"{statement.strip().rstrip(';')};\n" for statement in self.statements)
        finished = subprocess.run([self.program, "-"], input=script, capture_output=True, text=True, check=False)
        return "" if finished.returncode == 0 else finished.stdout + finished.stderr


@pytest.fixture
def linter() -> Linter:
    """AWS's linter, to be given statements."""
    beside = Path(sys.executable).with_name("dsql-lint")
    program = str(beside) if beside.exists() else shutil.which("dsql-lint")
    if program is None:
        pytest.skip("AWS's linter is not installed (pip install dsql-lint)")
    return Linter(program)
