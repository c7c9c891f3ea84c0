"""Runs the official connector's own tests against a local cluster: theirs, or with the imports changed to ours.

``python official_suite.py theirs|ours [unit|integration]`` downloads the package's source distribution and installs
the package, with what its tests need, into a virtual environment of its own under the given directory; "ours" finds
our package beside it. Exits with pytest's code.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import dsql_connectors
from dsql_server.testing import LocalCluster

sys.path.append(str(Path(__file__).parent.parent))  # for what this shares with other tests, when run as a program
from published_package import interpreter, unpack

PACKAGE = "aurora-dsql-python-connector"
VERSION = "0.2.7"
REQUIREMENTS = (
    f"{PACKAGE}[psycopg,psycopg2,asyncpg]=={VERSION}",
    "pytest",
    "pytest-asyncio",
    "boto3",
    "python-dotenv",
)

#: What an application changes that comes from the official connector. The last one is the name announced to the server.
OURS = (
    (r"\baurora_dsql_(psycopg2|psycopg|asyncpg)\b", r"dsql_connectors.\1"),
    (r"from dsql_core\.occ_retry import OCCRetryConfig", "from dsql_connectors.psycopg import OCCRetryConfig"),
    (r"aurora-dsql-python-", "dsqlkit-"),
)

#: asyncpg knows no PGHOSTADDR: resolve the endpoint's name to the local cluster for it.
RESOLVER = """
import os, socket

_getaddrinfo = socket.getaddrinfo


def _local(host, port, *args, **kwargs):
    name = host.decode() if isinstance(host, bytes) else host
    if name == os.environ["CLUSTER_ENDPOINT"]:
        host, port = os.environ["PGHOSTADDR"], int(os.environ["PGPORT"])
    return _getaddrinfo(host, port, *args, **kwargs)


socket.getaddrinfo = _local
"""


def rewritten(sources: Path, target: Path) -> Path:
    """A copy of their integration tests with our imports."""
    for path in (sources / "tests").rglob("*.py"):
        text = path.read_text()
        for pattern, replacement in OURS:
            text = re.sub(pattern, replacement, text)
        copy = target / path.relative_to(sources)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)
    return target


def run(directory: Path, whose: str, suite: str, arguments: list[str]) -> int:
    """Run one suite against a cluster of its own."""
    sources = unpack(PACKAGE, VERSION, directory)
    python = interpreter(directory, REQUIREMENTS)
    where = sources if whose == "theirs" else rewritten(sources, directory / "ours")
    shim = directory / "shim"
    shim.mkdir(exist_ok=True)
    (shim / "resolve_locally.py").write_text(RESOLVER)
    with LocalCluster() as cluster:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PG"))}
        environment.update(
            AWS_ACCESS_KEY_ID=cluster.access_key_id,
            AWS_SECRET_ACCESS_KEY=cluster.secret_access_key,
            AWS_REGION=cluster.region,
            AWS_DEFAULT_REGION=cluster.region,
            REGION=cluster.region,
            CLUSTER_ENDPOINT=cluster.endpoint,
            CLUSTER_USER="admin",
            PGHOSTADDR=cluster.host,
            PGPORT=str(cluster.port),
            PGSSLROOTCERT=str(cluster.ca_file),
            SSL_CERT_PATH=str(cluster.ca_file),
            SSL_CERT_FILE=str(cluster.ca_file),
            PYTHONPATH=os.pathsep.join((str(shim), str(Path(dsql_connectors.__file__).parent.parent))),
        )
        command = [str(python), "-m", "pytest", "-q", "-p", "resolve_locally", f"tests/{suite}", *arguments]
        return subprocess.run(command, cwd=where, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("whose", choices=("theirs", "ours"))
    parser.add_argument("suite", choices=("unit", "integration"), nargs="?", default="integration")
    parser.add_argument("--directory", type=Path, required=True)
    options, arguments = parser.parse_known_args()
    return run(options.directory, options.whose, options.suite, arguments)


if __name__ == "__main__":
    sys.exit(main())
