"""``pg_dump -s``: the schema as it was made, DSQL's access method, and nothing of the machinery."""

from __future__ import annotations

import re
import subprocess

import pytest
from plain_relay import PlainRelay
from psycopg import Connection

from dsql_server.engine.binaries import find_binaries
from dsql_server.testing import LocalCluster

DUMP_TIMEOUT_S = 60
MACHINERY = re.compile(r"dsql_|dsqlkit|engine_|plpgsql|\bsys\b|pg_catalog\.pg_(?!get_)")
#: Settings that every dump begins with, and marks that are random.
PREAMBLE = re.compile(r"^(SET .*|SELECT pg_catalog\.set_config.*|--.*|\\(un)?restrict .*|)$")

SCHEMA = (
    "CREATE ROLE dump_reader",
    "CREATE SCHEMA archive",
    "CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%')",
    "CREATE TABLE parent (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), name text NOT NULL, v int UNIQUE)",
    "CREATE TABLE child (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 65536) PRIMARY KEY, contact email, "
    "parent_id uuid REFERENCES parent (id) ON DELETE CASCADE, amount numeric CHECK (amount > 0))",
    "CREATE INDEX ASYNC by_amount ON child (amount) INCLUDE (contact) WHERE amount > 1",
    "CREATE UNIQUE INDEX ASYNC by_name ON parent (lower(name))",
    "CREATE VIEW big AS SELECT id FROM child WHERE amount > 10",
    "CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql AS 'SELECT 2 * n'",
    "CREATE SEQUENCE numbers CACHE 1",
    "CREATE STATISTICS name_and_v ON name, v FROM parent",
    "COMMENT ON TABLE parent IS 'The parent'",
    "GRANT SELECT ON parent TO dump_reader",
    "ALTER TABLE parent ADD CONSTRAINT positive CHECK (v > 0) NOT VALID",
    "CREATE TABLE archive.heap (a int, b json)",
)

EXPECTED = (
    "CREATE SCHEMA archive;",
    "CREATE DOMAIN public.email AS text",
    "    amount numeric(18,6),",
    "    id uuid DEFAULT gen_random_uuid() NOT NULL,",
    "    CACHE 65536",
    "CREATE INDEX by_amount ON public.child USING btree_index (amount) INCLUDE (contact) "
    "WHERE (amount > (1)::numeric);",
    "CREATE UNIQUE INDEX by_name ON public.parent USING btree_index (lower(name));",
    "CREATE VIEW public.big AS",
    "CREATE FUNCTION public.twice(n integer) RETURNS integer",
    "CREATE STATISTICS public.name_and_v ON name, v FROM public.parent;",
    "COMMENT ON TABLE public.parent IS 'The parent';",
    "GRANT SELECT ON TABLE public.parent TO dump_reader;",
    "    ADD CONSTRAINT positive CHECK ((v > 0)) NOT VALID;",
    "    ADD CONSTRAINT parent_pkey PRIMARY KEY (id);",
    "    ADD CONSTRAINT child_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES public.parent(id) ON DELETE CASCADE;",
)


def _dump(cluster: LocalCluster) -> str:
    program = find_binaries().bindir / "pg_dump"
    if not program.exists():
        pytest.skip("the engine's binaries come without pg_dump")
    with PlainRelay(cluster) as relay:
        target = f"host=127.0.0.1 port={relay.port} user=admin dbname=postgres sslmode=disable"
        done = subprocess.run(
            [program, "-s", target],
            env={"PGPASSWORD": cluster.token()},
            capture_output=True,
            text=True,
            timeout=DUMP_TIMEOUT_S,
        )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_of_an_empty_database(cluster: LocalCluster) -> None:
    lines = [line for line in _dump(cluster).splitlines() if not PREAMBLE.match(line)]
    assert lines == []


def test_of_a_schema(cluster: LocalCluster) -> None:
    with cluster.connect(autocommit=True) as connection:
        try:
            for statement in SCHEMA:
                connection.execute(statement)  # type: ignore[call-overload]
            cluster.wait_for_jobs()
            dumped = _dump(cluster)
        finally:
            _drop_role(connection)
    for line in EXPECTED:
        assert line in dumped.splitlines(), (line, dumped)
    assert not MACHINERY.search(re.sub(r"(?m)^SELECT pg_catalog\.set_config.*$", "", dumped)), dumped


def _drop_role(connection: Connection) -> None:
    if connection.execute("SELECT to_regclass('parent') IS NOT NULL").fetchone() == (True,):
        connection.execute("REVOKE ALL ON parent FROM dump_reader")
    connection.execute("DROP ROLE IF EXISTS dump_reader")
