"""The pizza orders' own tests, as a project would run them: ``manage.py test`` starts its own server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dsql_dialects

PROJECT = Path(__file__).parents[2] / "examples" / "pizza_django"


def manage(*arguments: str) -> subprocess.CompletedProcess[str]:
    names = ("AWS_", "PG", "DATABASE_URL", "DJANGO_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(names)}
    roots = [str(Path(dsql_dialects.__file__).parents[2] / folder) for folder in ("dialects", "connectors", "server")]
    environment["PYTHONPATH"] = os.pathsep.join(roots)
    return subprocess.run(
        [sys.executable, "-W", "error", "manage.py", *arguments],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_projects_tests() -> None:
    done = manage("test", "--noinput")
    assert done.returncode == 0, done.stderr
    assert "Ran 7 tests" in done.stderr, "a suite that collects less than it has proves less"
    assert "Starting a local Aurora DSQL server" in done.stderr
