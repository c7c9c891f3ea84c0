"""The connectors' types, as ``mypy --strict`` shows them to applications."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dsql_connectors import psycopg

CALLERS = Path(__file__).with_name("typed_callers.py")


def test_callers_are_clean_under_mypy_strict(tmp_path: Path) -> None:
    # The installed package may be this checkout, which mypy finds only through MYPYPATH.
    environment = {**os.environ, "MYPYPATH": str(Path(psycopg.__file__).parents[2])}
    options = ["--strict", "--config-file=", f"--cache-dir={tmp_path}", "--follow-imports=silent"]
    command = [sys.executable, "-m", "mypy", *options, "--disable-error-code=import-untyped", str(CALLERS)]
    checked = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
