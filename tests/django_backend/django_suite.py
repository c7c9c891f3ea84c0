"""Runs Django's own test suite, of the version that is installed, against local clusters.

``python tests/django_backend/django_suite.py --directory DIR [--jobs N] [LABEL …]`` downloads Django's source
distribution, which carries the suite, into DIR, runs each label by itself, and prints a table of what came out. Without
labels it runs all of ``LABELS``. Each job has a cluster of its own; each label a schema of its own. A label's output is
kept in DIR. Exits with 1 if a test failed that ``features.py`` doesn't list.
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import django

import dsql_dialects
from dsql_server.testing import LocalCluster

sys.path.append(str(Path(__file__).parent.parent))  # for what this shares with other tests, when run as a program
from published_package import unpack

LABELS = (
    "schema",
    "migrations",
    "introspection",
    "transactions",
    "queries",
    "basic",
    "indexes",
    "constraints",
    "backends",
    "lookup",
    "ordering",
    "aggregation",
    "expressions",
    "annotations",
    "delete",
    "update",
    "bulk_create",
    "get_or_create",
    "select_for_update",
    "many_to_many",
    "many_to_one",
    "one_to_one",
    "foreign_object",
    "model_fields",
    "custom_pk",
    "composite_pk",
    "admin_views",
    "auth_tests",
    "contenttypes_tests",
    "sessions_tests",
    "sites_tests",
    "test_utils",
    "inspectdb",
    "db_functions",
    "fixtures",
)

#: Their migrations create an extension, and there are none: their tables are made from their models.
UNMIGRATED = ("db_functions",)

#: What the tests of these labels import, beside Django.
TEST_TOOLS = ("jinja2", "docutils", "pyyaml", "sqlparse")

SETTINGS = """
import os

def _database(name):
    return {{
        "ENGINE": "dsql_dialects.django",
        "HOST": os.environ["CLUSTER_ENDPOINT"],
        "PORT": os.environ["PGPORT"],
        "USER": "admin",
        "NAME": "postgres",
        # Tests count on keys that begin at 1 and leave nothing out.
        "OPTIONS": {{"identity_cache": 1}},
        "TEST": {{"NAME": name, "MIGRATE": {migrate}}},
    }}

DATABASES = {{"default": _database("{label}"), "other": _database("{label}_other")}}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
"""


class Outcome(NamedTuple):
    """What came of one label."""

    label: str
    status: int  #: of the process; 0 if all is well
    ran: int
    failed: int  #: failures, errors and unexpected successes
    expected_failures: int
    skipped: int
    seconds: float


def environment(cluster: LocalCluster, settings: Path) -> dict[str, str]:
    """Of the suite's process: the cluster, and where the backend and the settings lie."""
    roots = Path(dsql_dialects.__file__).parents[2]
    paths = (settings, roots / "dialects", roots / "connectors", roots / "server")
    return {
        **cluster.environ({name: value for name, value in os.environ.items() if not name.startswith("PG")}),
        "CLUSTER_ENDPOINT": cluster.endpoint,
        "PGHOSTADDR": cluster.host,
        "PGPORT": str(cluster.port),
        "PGSSLROOTCERT": cluster.ca_file,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
    }


def run_label(tests: Path, label: str, cluster: LocalCluster, directory: Path) -> Outcome:
    """Run one label of the suite; its output goes to ``LABEL.txt``."""
    name = re.sub(r"\W", "_", label)
    settings = directory / "settings"
    settings.mkdir(exist_ok=True)
    (settings / f"suite_{name}.py").write_text(SETTINGS.format(label=name[:40], migrate=label not in UNMIGRATED))
    command = [sys.executable, "runtests.py", "--settings", f"suite_{name}", "--noinput", "--parallel", "1", label]
    started_s = time.monotonic()
    with (directory / f"{name}.txt").open("w") as output:
        status = subprocess.run(
            command, cwd=tests, env=environment(cluster, settings), stdout=output, stderr=subprocess.STDOUT, check=False
        ).returncode
    return outcome(label, status, (directory / f"{name}.txt").read_text(), time.monotonic() - started_s)


def outcome(label: str, status: int, output: str, seconds: float) -> Outcome:
    """Read unittest's summary."""
    ran = re.search(r"^Ran (\d+) tests? in", output, re.MULTILINE)
    summary = re.search(r"^(?:OK|FAILED)(?: \((.*)\))?$", output, re.MULTILINE)
    counts = dict(re.findall(r"([a-z ]+)=(\d+)", summary[1] or "")) if summary else {}
    counts = {name.strip(): int(number) for name, number in counts.items()}
    failed = counts.get("failures", 0) + counts.get("errors", 0) + counts.get("unexpected successes", 0)
    return Outcome(
        label,
        status if ran else status or 1,
        int(ran[1]) if ran else 0,
        failed,
        counts.get("expected failures", 0),
        counts.get("skipped", 0),
        seconds,
    )


def run(directory: Path, labels: Sequence[str], jobs: int) -> list[Outcome]:
    """Run the labels, ``jobs`` at a time."""
    tests = unpack("django", django.get_version(), directory) / "tests"
    clusters: queue.SimpleQueue[LocalCluster] = queue.SimpleQueue()
    started = [LocalCluster() for _ in range(min(jobs, len(labels)))]
    try:
        for cluster in started:
            cluster.start()
            clusters.put(cluster)

        def one(label: str) -> Outcome:
            cluster = clusters.get()
            try:
                done = run_label(tests, label, cluster, directory)
            finally:
                clusters.put(cluster)
            print(row(done), flush=True)
            return done

        with ThreadPoolExecutor(len(started)) as pool:
            return list(pool.map(one, labels))
    finally:
        for cluster in started:
            cluster.stop()


def row(done: Outcome) -> str:
    """A line of the table."""
    passed = done.ran - done.failed - done.expected_failures - done.skipped
    verdict = "" if done.status == 0 else " **failed**"
    return (
        f"| {done.label}{verdict} | {done.ran} | {passed} | {done.failed} | {done.expected_failures} | {done.skipped} "
        f"| {done.seconds:.0f} |"
    )


def main() -> int:
    """Print the table; 0 if every label is as ``features.py`` says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", nargs="*", metavar="LABEL", default=LABELS)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args()
    print(f"Django {django.get_version()}\n")
    print("| label | tests | passed | failed | expected failures | skipped | seconds |\n|---|--:|--:|--:|--:|--:|--:|")
    outcomes = run(options.directory.resolve(), options.labels, options.jobs)
    total = [sum(numbers) for numbers in zip(*(done[1:] for done in outcomes), strict=True)]
    print(row(Outcome("**all**", *total)))
    for done in outcomes:
        if done.status:
            print(f"\n{done.label} failed: see {options.directory / re.sub(chr(92) + 'W', '_', done.label)}.txt")
    return int(any(done.status for done in outcomes))


if __name__ == "__main__":
    sys.exit(main())
