"""Runs the official Django adapter's own tests, with its package, against a local cluster.

``python tests/django_backend/official_adapter.py --directory DIR`` installs ``aurora-dsql-django`` into a virtual
environment in DIR, downloads its source distribution, and runs its unit and integration tests unchanged. Its settings
name port 5432; ours import them and change nothing else. Exits with pytest's code.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from dsql_server.testing import LocalCluster

sys.path.append(str(Path(__file__).parent.parent))  # for what this shares with other tests, when run as a program
from published_package import interpreter, unpack

PACKAGE = "aurora-dsql-django"
VERSION = "0.7.0"

#: pytest-django would keep the unit tests from their database; one of them needs psycopg2.
REQUIREMENTS = (
    f"{PACKAGE}=={VERSION}",
    "django>=5.2,<6",
    "aurora-dsql-python-connector[psycopg,psycopg2]",
    "pytest>=8.2",
)

SETTINGS = """
import os

from aurora_dsql_django.tests.test_settings import *

DATABASES["default"]["PORT"] = os.environ["PGPORT"]
"""

#: Django has to be set up before the integration tests import its TestCase.
PLUGIN = """
import django

django.setup()
"""


def run(directory: Path, arguments: list[str]) -> int:
    """Run both suites against a cluster of their own."""
    sources, python = unpack(PACKAGE, VERSION, directory), interpreter(directory, REQUIREMENTS)
    shim = directory / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "local_settings.py").write_text(SETTINGS)
    (shim / "set_up_django.py").write_text(PLUGIN)
    with LocalCluster() as cluster:
        environment = {
            **cluster.environ({name: value for name, value in os.environ.items() if not name.startswith("PG")}),
            "CLUSTER_ENDPOINT": cluster.endpoint,
            "PGHOSTADDR": cluster.host,
            "PGPORT": str(cluster.port),
            "PGSSLROOTCERT": cluster.ca_file,
            "SSL_CERT_FILE": cluster.ca_file,
            "DJANGO_SETTINGS_MODULE": "local_settings",
            "PYTHONPATH": str(shim),
        }
        # The package comes from the virtual environment; the sources only bring the tests.
        tests = [f"aurora_dsql_django/tests/{suite}" for suite in ("unit", "integration")]
        command = [
            str(python),
            "-m",
            "pytest",
            "-q",
            "-p",
            "set_up_django",
            "-p",
            "no:cacheprovider",
            *tests,
            *arguments,
        ]
        return subprocess.run(command, cwd=sources, env=environment, check=False).returncode


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, required=True)
    options, arguments = parser.parse_known_args()
    return run(options.directory.resolve(), arguments)


if __name__ == "__main__":
    sys.exit(main())
