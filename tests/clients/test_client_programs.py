"""Drivers of other languages: pgjdbc and node-postgres, each in a program of its own (folder ``programs``).

pgjdbc is looked for where Debian's libpostgresql-jdbc-java puts it, or at ``DSQLKIT_PGJDBC_JAR``. node-postgres is
taken from ``DSQLKIT_NODE_MODULES``, or installed once with npm into the user's cache directory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from dsql_server.testing import LocalCluster

PROGRAMS = Path(__file__).parent / "programs"
PROGRAM_TIMEOUT_S = 100
NODE_POSTGRES_VERSION = "8.23.1"


def checked(done: subprocess.CompletedProcess[str], at_least: int) -> None:
    """Every check of a program held, and there were enough."""
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in lines if not line.startswith("ok ")] == []
    assert len(lines) >= at_least, lines


def pgjdbc_jar() -> str:
    if shutil.which("java") is None:
        pytest.skip("java is not installed")
    for jar in (os.environ.get("DSQLKIT_PGJDBC_JAR", ""), "/usr/share/java/postgresql.jar"):
        if jar and Path(jar).exists():
            return jar
    pytest.skip("pgjdbc is not installed: install libpostgresql-jdbc-java or set DSQLKIT_PGJDBC_JAR")


def node_modules() -> Path:
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    given = os.environ.get("DSQLKIT_NODE_MODULES")
    if given:
        return Path(given)
    folder = user_cache_path("dsqlkit") / f"node-postgres-{NODE_POSTGRES_VERSION}"
    if not (folder / "node_modules" / "pg").exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed: install node-postgres and set DSQLKIT_NODE_MODULES")
        folder.mkdir(parents=True, exist_ok=True)
        install = [npm, "install", "--no-fund", "--no-audit", "--silent", f"pg@{NODE_POSTGRES_VERSION}"]
        done = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
        if done.returncode:
            pytest.skip(f"npm could not install node-postgres: {(done.stderr or done.stdout)[-200:]}")
    return folder / "node_modules"


def test_pgjdbc(cluster: LocalCluster, tmp_path: Path) -> None:
    jar = pgjdbc_jar()
    hosts = tmp_path / "hosts"
    hosts.write_text(f"{cluster.host} {cluster.endpoint}\n")
    url = f"jdbc:postgresql://{cluster.endpoint}:{cluster.port}/postgres?sslmode=verify-full&sslrootcert={cluster.ca_file}"
    command = ["java", "-Xmx128m", f"-Djdk.net.hosts.file={hosts}", "-cp", jar, str(PROGRAMS / "JdbcClient.java")]
    environment = {**os.environ, "JDBC_URL": url, "PGPASSWORD": cluster.token()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
    checked(done, 12)


def test_node_postgres(cluster: LocalCluster) -> None:
    modules = node_modules()
    environment = {
        **os.environ,
        "NODE_PATH": str(modules),
        "ENDPOINT": cluster.endpoint,
        "PGHOSTADDR": cluster.host,
        "PGPORT": str(cluster.port),
        "PGPASSWORD": cluster.token(),
        "PGSSLROOTCERT": cluster.ca_file,
    }
    command = ["node", str(PROGRAMS / "node_client.js")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S)
    checked(done, 10)
