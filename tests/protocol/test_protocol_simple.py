"""The simple query protocol: texts of many statements, blocks, COPY both ways."""

from __future__ import annotations

import time

import pytest
from raw_client import (
    COPY_DONE,
    FLUSH,
    SYNC,
    TIMEOUT_S,
    RawClient,
    connect,
    copy_data,
    copy_fail,
    error_of,
    kinds,
    query,
    rows_of,
    run,
)

from dsql_server.testing import LocalCluster


def count(client: RawClient, table: str) -> int:
    return int(rows_of(client.ask(query(f"SELECT count(*) FROM {table}")))[0][0] or b"")


def test_many_statements_are_one_transaction(client: RawClient, table: str) -> None:
    text = f"INSERT INTO {table} VALUES (1); INSERT INTO {table} VALUES (2); SELECT count(*) FROM {table};"
    answer = client.ask(query(text))
    assert kinds(answer) == "CCTDCZ"
    assert rows_of(answer) == [[b"2"]]
    answer = client.ask(query(f"INSERT INTO {table} VALUES (3); SELECT 1 / 0; INSERT INTO {table} VALUES (4)"))
    assert kinds(answer) == "CEZ"
    assert count(client, table) == 2


def test_a_duplicate_in_the_last_statement_undoes_the_first(client: RawClient, table: str) -> None:
    client.ask(query(f"INSERT INTO {table} VALUES (2)"))
    answer = client.ask(query(f"INSERT INTO {table} VALUES (1); INSERT INTO {table} VALUES (2)"))
    assert error_of(answer)["C"] == "23505"
    assert count(client, table) == 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("SELECT 1; SELECT nope", "nope"),
        ("/* é */ SELECT 1; /* é */ SELECT 2, nope", "nope"),
        ("SELECT 1; SELEC 2", "SELEC"),
        ("SELECT 1;\n\n  SELECT * FROM no_table", "no_table"),
        ("COMMIT; CREATE TABLE x (id nosuch)", "nosuch"),
    ],
)
def test_positions_count_from_the_start_of_the_text(client: RawClient, text: str, word: str) -> None:
    refusal = error_of(client.ask(query(text)))
    assert text[int(refusal["P"]) - 1 :].startswith(word), refusal


def test_a_syntax_error_anywhere_runs_nothing(client: RawClient, table: str) -> None:
    answer = client.ask(query(f"INSERT INTO {table} VALUES (1); SELEC"))
    assert kinds(answer) == "EZ"
    assert count(client, table) == 0


@pytest.mark.parametrize("text", ["", " ", ";", " ; ;; ", "-- nothing", "/* nothing */"])
def test_empty_queries(client: RawClient, text: str) -> None:
    assert kinds(client.ask(query(text))) == "IZ"


def test_blocks_within_a_text(client: RawClient, table: str) -> None:
    text = f"BEGIN; INSERT INTO {table} VALUES (1); COMMIT; BEGIN; INSERT INTO {table} VALUES (2); ROLLBACK; SELECT 1"
    assert kinds(client.ask(query(text))) == "CCCCCCTDCZ"
    assert count(client, table) == 1
    assert client.ask(query("BEGIN"))[-1].body == b"T"
    assert client.ask(query("SELECT 1 / 0"))[-1].body == b"E"
    assert error_of(client.ask(query("SELECT 1")))["C"] == "25P02"
    assert kinds(client.ask(query(""))) == "IZ"
    answer = client.ask(query("COMMIT"))
    assert (answer[0].tag, answer[-1].body) == ("ROLLBACK", b"I")


def test_warnings(client: RawClient) -> None:
    for sql, sqlstate in (("COMMIT", "25P01"), ("ROLLBACK", "25P01"), ("BEGIN; BEGIN", "25001")):
        notices = [m.fields for m in client.ask(query(sql)) if m.kind == "N"]
        assert [(n["S"], n["C"]) for n in notices] == [("WARNING", sqlstate)]
    client.ask(query("ROLLBACK"))


# -- COPY ----------------------------------------------------------------------------------------------------------


def test_copy_in_and_out(client: RawClient, table: str) -> None:
    client.send(query(f"COPY {table} FROM STDIN"))
    assert kinds(client.until("G")) == "G"
    answer = client.ask(copy_data(b"1\ta\n2\t"), copy_data(b"b\\n\n3\t\\N"), copy_data(b"\n"), COPY_DONE)
    assert (kinds(answer), answer[0].tag) == ("CZ", "COPY 3")
    answer = client.ask(query(f"COPY (SELECT * FROM {table} ORDER BY id) TO STDOUT"))
    assert kinds(answer) == "HdddcCZ"
    assert [m.body for m in answer if m.kind == "d"] == [b"1\ta\n", b"2\tb\\n\n", b"3\t\\N\n"]
    answer = client.ask(query(f"COPY {table} TO STDOUT (FORMAT csv, HEADER)"))
    assert sorted(m.body for m in answer if m.kind == "d") == [b"1,a\n", b'2,"b\n"\n', b"3,\n", b"id,v\n"]


@pytest.mark.parametrize("sync_first", [True, False])
def test_copy_in_the_extended_protocol(client: RawClient, table: str, sync_first: bool) -> None:
    """libpq sends a Sync right behind the COPY, where it means nothing, and another behind the data."""
    client.send(run(f"COPY {table} FROM STDIN"), SYNC if sync_first else FLUSH)
    assert kinds(client.until("G")) == "12nG"
    answer = client.ask(copy_data(b"1\ta\n"), COPY_DONE, SYNC)
    assert kinds(answer) == "CZ"
    assert client.quiet(0.05)
    assert count(client, table) == 1
    client.send(run(f"COPY {table} FROM STDIN"), SYNC if sync_first else FLUSH)
    client.until("G")
    assert kinds(client.ask(copy_data(b"x\ta\n"), COPY_DONE, SYNC)) == "EZ"
    assert client.quiet(0.05)
    assert count(client, table) == 1


@pytest.mark.parametrize("extended", [False, True])
@pytest.mark.parametrize(
    ("data", "sqlstate"),
    [
        (b"x\ta\n", "22P02"),
        (b"1\n", "22P04"),
        (b"1\ta\tb\n", "22P04"),
        (b"1\t\xff\n", "22021"),
        (b"5\ta\n5\tb\n", "23505"),
        (b"7\ta\n", "23505"),
    ],
)
def test_copy_of_bad_data(client: RawClient, table: str, data: bytes, sqlstate: str, extended: bool) -> None:
    client.ask(query(f"INSERT INTO {table} VALUES (7)"))
    sql = f"COPY {table} FROM STDIN"
    client.send(run(sql) + FLUSH if extended else query(sql))
    client.until("G")
    client.send(copy_data(b"100\tfine\n"), copy_data(data))
    time.sleep(0.05)  # the engine has found the error before the data ends
    answer = client.ask(copy_data(b"101\tfine\n") * 20, COPY_DONE, SYNC if extended else b"")
    assert (error_of(answer)["C"], kinds(answer)) == (sqlstate, "EZ")
    assert count(client, table) == 1


def test_copy_fail(client: RawClient, table: str) -> None:
    client.send(query(f"COPY {table} FROM STDIN"))
    client.until("G")
    refusal = error_of(client.ask(copy_data(b"1\ta\n"), copy_fail("changed my mind")))
    assert (refusal["C"], refusal["M"]) == ("57014", "COPY from stdin failed: changed my mind")
    assert count(client, table) == 0


def test_copy_among_other_statements(client: RawClient, table: str) -> None:
    client.send(query(f"INSERT INTO {table} VALUES (1); COPY {table} FROM STDIN; SELECT count(*) FROM {table}"))
    assert kinds(client.until("G")) == "CG"
    answer = client.ask(copy_data(b"2\tb\n"), COPY_DONE)
    assert rows_of(answer) == [[b"2"]]


def test_another_query_amid_copy_data(client: RawClient, table: str) -> None:
    client.send(query(f"COPY {table} FROM STDIN"))
    client.until("G")
    assert "E" in kinds(client.ask(copy_data(b"1\ta\n"), query("SELECT 1")))
    assert count(client, table) == 0


def test_copy_takes_as_many_rows_as_a_transaction_may_write(client: RawClient, table: str) -> None:
    for rows, sqlstate in ((3000, None), (3001, "54000")):
        client.send(query(f"COPY {table} FROM STDIN"))
        client.until("G")
        answer = client.ask(copy_data(b"".join(b"%d\t\\N\n" % n for n in range(rows))), COPY_DONE)
        if sqlstate is None:
            assert (kinds(answer), answer[0].tag) == ("CZ", f"COPY {rows}")
            client.ask(query(f"DELETE FROM {table}"))
        else:
            refusal = error_of(answer)
            assert (refusal["C"], refusal["M"]) == (sqlstate, "transaction row limit exceeded")
    assert count(client, table) == 0


@pytest.mark.parametrize(
    "sql", ["COPY t FROM '/etc/passwd'", "COPY (SELECT 1) TO '/tmp/x'", "COPY (SELECT 1) TO PROGRAM 'cat'"]
)
def test_copy_reaches_no_files(client: RawClient, sql: str) -> None:
    assert error_of(client.ask(query(sql)))["C"] in ("0A000", "42501")


# -- clients that leave --------------------------------------------------------------------------------------------


def test_client_gone_within_a_statement(cluster: LocalCluster) -> None:
    gone = connect(cluster)
    gone.send(query("SELECT pg_sleep(0.3)"))
    gone.abort()


def test_client_gone_within_a_transaction(cluster: LocalCluster, client: RawClient, table: str) -> None:
    gone = connect(cluster)
    gone.ask(query(f"BEGIN; INSERT INTO {table} VALUES (1)"))
    gone.abort()
    assert count(client, table) == 0
    # Nothing is locked either.
    client.ask(query(f"INSERT INTO {table} VALUES (1)"))
    assert count(client, table) == 1


@pytest.mark.parametrize("extended", [False, True])
def test_client_gone_within_copy_data(cluster: LocalCluster, client: RawClient, table: str, extended: bool) -> None:
    gone = connect(cluster)
    sql = f"COPY {table} FROM STDIN"
    gone.send(run(sql) + FLUSH if extended else query(sql))
    gone.until("G")
    gone.send(copy_data(b"1\ta\n"), copy_data(b"2\tb\n")[:7])
    gone.abort()
    assert count(client, table) == 0


def test_client_gone_before_its_answer(cluster: LocalCluster, client: RawClient, table: str) -> None:
    """What was sent whole is done; the answer is lost."""
    gone = connect(cluster)
    gone.send(query(f"INSERT INTO {table} VALUES (1)"))
    gone.socket.close()
    deadline_s = time.monotonic() + TIMEOUT_S
    while count(client, table) != 1 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    assert count(client, table) == 1


def test_terminate(client: RawClient) -> None:
    client.send(query("SELECT 1"), b"X\x00\x00\x00\x04", query("SELECT 2"))
    assert kinds(client.rest()) == "TDCZ"


def test_reads_beside_ddl_leave_no_rows_behind(cluster: LocalCluster, table: str) -> None:
    """The engine keeps what DDL did, but not the rows that the same transaction looked at."""
    with connect(cluster) as client:
        client.ask_patiently(f"INSERT INTO {table} VALUES (1, 'old')")
        for text in (
            f"SELECT * FROM {table}; CREATE TABLE protocol_beside (id int PRIMARY KEY)",
            f"BEGIN; DROP TABLE protocol_beside; SELECT * FROM {table}; COMMIT",
            f"BEGIN; SELECT * FROM {table}; CREATE ROLE protocol_role; COMMIT",
            f"BEGIN; DROP ROLE protocol_role; SELECT * FROM {table}; COMMIT",
        ):
            answer = client.ask_patiently(text)
            assert "E" not in kinds(answer), (text, answer)
            assert "E" not in kinds(client.ask_patiently(f"UPDATE {table} SET v = v || '+' WHERE id = 1"))
            assert rows_of(client.ask_patiently(f"SELECT count(*) FROM {table}")) == [[b"1"]]
        assert rows_of(client.ask_patiently(f"SELECT v FROM {table}")) == [[b"old++++"]]
        assert rows_of(client.ask_patiently("SELECT 1 FROM pg_roles WHERE rolname = 'protocol_role'")) == []
