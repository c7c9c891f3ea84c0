"""SQLite's sqllogictest corpus: no answer of the cluster is wrong.

The corpus isn't part of the project: its directory is named by DSQLKIT_SQLLOGICTEST, or found where
``slt_corpus.py`` looks. docs/verification.md says what every file gave.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from slt_corpus import VARIABLE, corpus_directory, files_by_size
from slt_format import parse
from slt_runner import run
from slt_servers import Server, dsql, plain_postgresql

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
#: Files up to this size run every day.
FILE_BYTES_MAX = 10**9 if FULL else 200_000
DATABASE = "postgresql"
#: Wrong answers that a failure shows.
SHOWN_MAX = 5

ROOT = corpus_directory()
FILES = [path for path in files_by_size(ROOT) if path.stat().st_size <= FILE_BYTES_MAX] if ROOT else []

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def theirs() -> Iterator[Server]:
    with plain_postgresql() as server:
        yield server


@pytest.fixture
def ours(dsql_cluster: LocalCluster) -> Iterator[Server]:
    with dsql(dsql_cluster) as server:
        yield server


@pytest.mark.skipif(ROOT is None, reason=f"{VARIABLE} names no directory with sqllogictest's files")
def test_there_are_files() -> None:
    assert FILES, f"no .test file of at most {FILE_BYTES_MAX} bytes in {ROOT}"


@pytest.mark.parametrize("path", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in FILES if ROOT])
def test_file(path: Path, ours: Server, theirs: Server) -> None:
    script = parse(path.read_text(), DATABASE)
    report = run(script, ours, theirs)
    assert not report.wrong, f"{len(report.wrong)} wrong answers:\n" + "\n".join(map(str, report.wrong[:SHOWN_MAX]))
    judged = report.passed + report.dialect + report.refused.total()
    assert judged == report.statements + report.queries == len(script.records) > 0
    # Else nothing would have been compared: the corpus is right nearly everywhere.
    assert report.passed > judged * 0.8, report
