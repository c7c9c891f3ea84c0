"""Run sqllogictest files and print what became of them: ``python tests/sqllogictest/run_corpus.py [FILE ...]``.

Without files: the whole corpus, smallest first. Ends with status 1 if an answer was wrong.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from slt_corpus import corpus_directory, files_by_size
from slt_format import parse
from slt_runner import run
from slt_servers import dsql, postgresql

from dsql_server.testing import LocalCluster

DATABASE = "postgresql"
WRONG_SHOWN_MAX = 5


def main() -> int:
    root = corpus_directory()
    paths = [Path(argument) for argument in sys.argv[1:]] or (files_by_size(root) if root else [])
    if not paths:
        raise SystemExit("no files: name some, or set DSQLKIT_SQLLOGICTEST to the corpus's directory")
    is_right = True
    print("| file | statements | queries | passed | dialect | refused | wrong | other databases' | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    with LocalCluster() as cluster, postgresql() as theirs:
        for path in paths:
            script = parse(path.read_text(), DATABASE)
            begun_s = time.monotonic()
            with dsql(cluster) as ours:
                report = run(script, ours, theirs)
            name = path.resolve().relative_to(root) if root and path.resolve().is_relative_to(root) else path
            print(
                f"| {name} | {report.statements} | {report.queries} | {report.passed} | {report.dialect}"
                f" | {report.refused.total()} | {len(report.wrong)} | {script.skipped}"
                f" | {time.monotonic() - begun_s:.1f} |",
                flush=True,
            )
            for refusal, times in report.refused.most_common():
                print(f"    refused {times} times: {refusal}", file=sys.stderr)
            for wrong in report.wrong[:WRONG_SHOWN_MAX]:
                print(wrong, file=sys.stderr, flush=True)
            is_right = is_right and not report.wrong
    return 0 if is_right else 1


if __name__ == "__main__":
    sys.exit(main())
