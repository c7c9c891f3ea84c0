"""Runs SQLAlchemy's compliance suite (``sqlalchemy.testing.suite``) on a local cluster.

``python tests/sqlalchemy_suite/run_suite.py [driver …] [-- pytest arguments]``; without drivers all three. Each driver
has a cluster of its own. Exits non-zero if one of them fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dsql_dialects.sqlalchemy import make_url
from dsql_server.testing import LocalCluster

HERE = Path(__file__).parent
DRIVERS = ("psycopg", "psycopg2", "asyncpg")


def run(driver: str, arguments: list[str]) -> int:
    """Run the suite with one driver; returns pytest's exit code."""
    with LocalCluster() as cluster:
        url = make_url(cluster.url).set(drivername=f"aws_dsql+{driver}")
        command = [sys.executable, "-m", "pytest", "-q", "-c", str(HERE / "setup.cfg"), "-p", "suite_plugin"]
        command += ["--dburi", url.render_as_string(hide_password=False)]
        command += [*arguments, str(HERE / "suite.py")]
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        environment = {**cluster.environ(os.environ), "PYTHONPATH": path}
        return subprocess.run(command, env=environment, cwd=HERE, check=False).returncode


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    drivers, rest = arguments[:split] or list(DRIVERS), arguments[split + 1 :]
    codes = []
    for driver in drivers:
        print(f"\n== SQLAlchemy's compliance suite, {driver}", flush=True)
        codes.append(run(driver, rest))
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
