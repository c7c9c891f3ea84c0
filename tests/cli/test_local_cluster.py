"""``LocalCluster`` and the pytest plugin, as the users of the distribution have them."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

import dsql_connectors.psycopg as dsql
from dsql_server.testing import ClusterError, LocalCluster


def test_connector_finds_everything_in_url_and_environment(dsql_url: str) -> None:
    with dsql.connect(dsql_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_starting_changes_no_environment(dsql_cluster: LocalCluster) -> None:
    before = dict(os.environ)
    environment = dsql_cluster.environ({"AWS_PROFILE": "mine", "AWS_SESSION_TOKEN": "x", "HOME": "/"})
    assert environment == {
        "HOME": "/",
        "AWS_ACCESS_KEY_ID": dsql_cluster.access_key_id,
        "AWS_SECRET_ACCESS_KEY": dsql_cluster.secret_access_key,
        "AWS_REGION": dsql_cluster.region,
        "AWS_DEFAULT_REGION": dsql_cluster.region,
    }
    assert dict(os.environ) == before


def test_secrets_stay_out_of_the_repr(dsql_cluster: LocalCluster) -> None:
    assert dsql_cluster.secret_access_key not in repr(dsql_cluster)
    assert dsql_cluster.url in repr(dsql_cluster)


def test_a_transaction_can_be_followed(dsql_cluster: LocalCluster, dsql_url: str) -> None:
    with dsql_cluster.connect(autocommit=True) as connection:
        connection.execute("CREATE TABLE followed (id uuid PRIMARY KEY)")
        connection.execute("INSERT INTO followed VALUES (%s)", (uuid.uuid4(),))
    recent = dsql_cluster.recent_transactions()
    assert recent and all(len(bytes.fromhex(name)) == 16 for name in recent)
    assert dsql_cluster.trace(recent[-1])
    assert dsql_cluster.trace("00" * 16) is None
    assert {"adjudicators", "journals", "storage", "crossbar", "processors"} <= set(dsql_cluster.metrics())


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    cluster = LocalCluster(pg_bindir=tmp_path)
    with pytest.raises(ClusterError, match="PostgreSQL"):
        cluster.start()
    with pytest.raises(ClusterError, match="not running"):
        cluster.metrics()


def test_a_stopped_cluster_can_be_stopped_again() -> None:
    cluster = LocalCluster()
    cluster.start()
    pid = cluster.pid
    cluster.stop()
    cluster.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_dead_server_is_an_error_not_a_hang_and_leaves_no_directory() -> None:
    with LocalCluster() as cluster:
        directory = Path(cluster.ca_file).parent
        assert directory.is_dir()
        os.kill(cluster.pid, 9)
        with pytest.raises(ClusterError, match="ended with status -9"):
            cluster.metrics()
    assert not directory.exists()


def test_each_test_gets_a_clean_database(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import psycopg
        import pytest

        @pytest.mark.parametrize("run", range(2))
        def test_objects_of_the_other_run_are_gone(dsql_cluster, dsql_url, run):
            with dsql_cluster.connect(autocommit=True) as connection:
                for statement in (
                    'CREATE TABLE "a table" (id bigint PRIMARY KEY, parent bigint)',
                    'CREATE SCHEMA "my schema"',
                    'CREATE TABLE "my schema".inner_table (id bigint PRIMARY KEY)',
                    'CREATE VIEW a_view AS SELECT id FROM "a table"',
                    'CREATE VIEW b_view AS SELECT id FROM a_view',
                    "CREATE SEQUENCE a_sequence CACHE 1",
                    "CREATE DOMAIN a_domain AS integer CHECK (VALUE > 0)",
                    "CREATE FUNCTION a_function(integer) RETURNS integer LANGUAGE sql IMMUTABLE AS 'SELECT $1'",
                    'INSERT INTO "a table" VALUES (1, 1)',
                ):
                    connection.execute(statement)
        """
    )
    pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider").assert_outcomes(passed=2)


def test_the_plugin_is_there_and_costs_nothing_unused(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing_is_loaded():
            loaded = {name.partition(".")[0] for name in sys.modules}
            assert not loaded & {"botocore", "psycopg", "pglast", "rocksdict", "rich", "click", "uvloop"}
        """
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:hypothesispytest")
    result.assert_outcomes(passed=1)
    fixtures = subprocess.run(
        [sys.executable, "-m", "pytest", "--fixtures", "-q", "-p", "no:cacheprovider"],
        cwd=pytester.path,
        capture_output=True,
        text=True,
    )
    assert "dsql_cluster" in fixtures.stdout and "dsql_url" in fixtures.stdout
