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
from slt_servers import Server, dsql, postgresql

from dsql_server.testing import LocalCluster

FULL = os.environ.get("DSQLKIT_FULL") == "1"
#: Files up to this size run by default: a minute altogether.
FILE_BYTES_MAX = 10**9 if FULL else 260_000
DATABASE = "postgresql"
#: Wrong answers that a failure shows.
SHOWN_MAX = 5

ROOT = corpus_directory()


def _files() -> Iterator[object]:
    """The files to run as parameters of a test."""
    if ROOT is None:
        reason = f"sqllogictest's files aren't part of the project: set {VARIABLE} to their directory"
        yield pytest.param(None, id="no-corpus", marks=pytest.mark.skip(reason=reason))
        return
    paths = [path for path in files_by_size(ROOT) if path.stat().st_size <= FILE_BYTES_MAX]
    assert paths, f"no .test file of at most {FILE_BYTES_MAX} bytes below {ROOT}"
    for path in paths:
        yield pytest.param(path, id=path.relative_to(ROOT).as_posix())


pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def theirs() -> Iterator[Server]:
    with postgresql() as server:
        yield server


@pytest.fixture
def ours(dsql_cluster: LocalCluster) -> Iterator[Server]:
    with dsql(dsql_cluster) as server:
        yield server


@pytest.mark.parametrize("path", _files())
def test_file(path: Path, ours: Server, theirs: Server) -> None:
    script = parse(path.read_text(), DATABASE)
    report = run(script, ours, theirs)
    assert not report.wrong, f"{len(report.wrong)} wrong answers:\n" + "\n".join(map(str, report.wrong[:SHOWN_MAX]))
    judged = report.passed + report.dialect + report.refused.total()
    assert judged == report.statements + report.queries == len(script.records) > 0
    # Else nothing would have been compared: the corpus is right nearly everywhere.
    assert report.passed > judged * 0.8, report
