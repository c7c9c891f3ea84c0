"""SQLAlchemy's pytest plugin, for ``pytest -p suite_plugin``, less the single tests that DSQL can't be asked for.

Every definition that the suite executes goes through AWS's linter at the end.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from dsql_requirements import TESTS_ABSENT
from sqlalchemy import Engine, event
from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: F403
from sqlalchemy.testing.plugin.pytestplugin import pytest_collection_modifyitems as _modify_items

_definitions: dict[str, None] = {}  #: in order, each once


@event.listens_for(Engine, "before_cursor_execute")
def _note_definition(
    connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, executemany: bool
) -> None:
    if context is not None and context.isddl:
        # The drivers of libpq take % for a parameter.
        doubled = connection.dialect.identifier_preparer._double_percents
        _definitions[statement.replace("%%", "%") if doubled else statement] = None


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    _modify_items(session, config, items)
    for item in items:
        # suite.py::IsolationLevelTest_aws_dsql+psycopg_16::test_name[parameters]
        name = re.sub(r"^.*?::(\w+?)_aws_dsql\+\w+?_\d+::", r"\1::", item.nodeid)
        reason = TESTS_ABSENT.get(name)
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """What the linter says of all definitions."""
    problems = _problems()
    terminalreporter.write_line(f"dsql-lint on {len(_definitions)} different definitions: {problems or 'no error'}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A definition that the linter refuses fails the run."""
    if _problems() and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _problems() -> str:
    beside = Path(sys.executable).with_name("dsql-lint")
    program = str(beside) if beside.exists() else shutil.which("dsql-lint")
    if program is None:
        return "it is not installed (pip install dsql-lint)"
    script = "".join(f"{statement.strip()};\n" for statement in _definitions)
    finished = subprocess.run([program, "-"], input=script, capture_output=True, text=True, check=False)
    return "" if finished.returncode == 0 else finished.stdout + finished.stderr
