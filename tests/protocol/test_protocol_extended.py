"""The extended query protocol: batches, portals, row limits, errors up to Sync, the state behind it."""

from __future__ import annotations

import pytest
from raw_client import (
    FLUSH,
    SYNC,
    RawClient,
    bind,
    close,
    connect,
    describe,
    error_of,
    execute,
    kinds,
    message,
    parse,
    query,
    rows_of,
    run,
)

from dsql_server.testing import LocalCluster

SERIES = "SELECT g FROM generate_series(1, 5) g"


def state(answer: list) -> str:  # type: ignore[type-arg]
    return answer[-1].body.decode()


def test_a_statement_on_its_own(client: RawClient) -> None:
    answer = client.ask(parse("SELECT $1::int * 2 AS twice") + bind([b"21"]) + describe("P") + execute() + SYNC)
    assert kinds(answer) == "12TDCZ"
    assert rows_of(answer) == [[b"42"]]
    assert state(answer) == "I"


def test_binary_both_ways(client: RawClient) -> None:
    answer = client.ask(
        parse("SELECT $1::int8 + 1, $2::bool")
        + bind([b"\x00" * 7 + b"\x29", b"\x01"], formats=[1], result_formats=[1, 0])
        + execute()
        + SYNC
    )
    assert rows_of(answer) == [[b"\x00" * 7 + b"\x2a", b"t"]]


def test_describe_and_flush_without_execute(client: RawClient, table: str) -> None:
    """What asyncpg and JDBC do: look at a statement first, bind it and run it later."""
    client.send(parse(f"SELECT id, v FROM {table} WHERE id > $1", "s") + describe("S", "s") + FLUSH)
    answer = [client.receive() for _ in range(3)]
    assert kinds(m for m in answer if m) == "1tT"
    client.send(bind([b"0"], portal="p", name="s") + describe("P", "p") + FLUSH)
    assert kinds(m for m in [client.receive(), client.receive()] if m) == "2T"
    assert client.quiet(0.05)
    assert kinds(client.ask(execute("p") + SYNC)) == "CZ"


def test_portals_bound_before_a_flush_survive_it(client: RawClient, table: str) -> None:
    client.ask(query(f"INSERT INTO {table} VALUES (1, 'a'), (2, 'b'), (3, 'c')"))
    client.send(parse(f"SELECT id FROM {table} ORDER BY id") + bind(portal="p") + execute("p", 1) + FLUSH)
    assert kinds(client.until("s")) == "12Ds"
    client.send(execute("p", 1) + FLUSH)
    assert rows_of(client.until("s")) == [[b"2"]]
    answer = client.ask(execute("p") + SYNC)
    assert rows_of(answer) == [[b"3"]]
    # Sync ended the implicit transaction, and the portal with it.
    assert error_of(client.ask(execute("p") + SYNC))["C"] == "34000"


def test_flushed_statements_are_one_transaction(client: RawClient, table: str) -> None:
    client.send(run(f"INSERT INTO {table} VALUES (1)") + FLUSH)
    client.until("C")
    answer = client.ask(run(f"SELECT count(*) FROM {table}") + SYNC)
    assert rows_of(answer) == [[b"1"]]
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"1"]]
    client.send(run(f"INSERT INTO {table} VALUES (2)") + FLUSH)
    client.until("C")
    client.ask(run("SELECT 1 / 0") + SYNC)
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"1"]]


def test_a_query_behind_unsynced_messages(client: RawClient, table: str) -> None:
    answer = client.ask(run(f"INSERT INTO {table} VALUES (1)") + query(f"SELECT count(*) FROM {table}"))
    assert rows_of(answer) == [[b"1"]]
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"1"]]


@pytest.mark.parametrize("block", [False, True])
def test_row_limits_suspend_portals(client: RawClient, block: bool) -> None:
    if block:
        client.ask(query("BEGIN"))
    answer = client.ask(
        parse(SERIES) + bind(portal="p") + execute("p", 2) + execute("p", 2) + execute("p", 2) + execute("p") + SYNC
    )
    assert kinds(answer) == "12DDsDDsDCCZ"
    assert [m.tag for m in answer if m.kind == "C"] == ["SELECT 1", "SELECT 0"]


def test_a_suspended_read_on_its_own_ends_with_sync(client: RawClient, table: str) -> None:
    client.ask(query(f"INSERT INTO {table} SELECT g FROM generate_series(1, 5) g"))
    answer = client.ask(parse(f"SELECT id FROM {table} ORDER BY id") + bind() + execute(rows_max=2) + SYNC)
    assert kinds(answer) == "12DDsZ"
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"5"]]


def test_portals_in_a_block_last_until_its_end(client: RawClient, table: str) -> None:
    client.ask(query(f"INSERT INTO {table} VALUES (1), (2), (3)"))
    client.ask(query("BEGIN"))
    client.ask(parse(f"SELECT id FROM {table} ORDER BY id", "s") + bind(portal="p", name="s") + SYNC)
    assert rows_of(client.ask(execute("p", 1) + SYNC)) == [[b"1"]]
    # What the transaction writes later is not seen by a portal that is open.
    client.ask(run(f"INSERT INTO {table} VALUES (0)") + SYNC)
    client.ask(run(f"DELETE FROM {table} WHERE id = 3") + SYNC)
    assert rows_of(client.ask(execute("p", 1) + SYNC)) == [[b"2"]]
    assert rows_of(client.ask(execute("p") + SYNC)) == [[b"3"]]
    client.ask(query("COMMIT"))
    assert error_of(client.ask(execute("p") + SYNC))["C"] == "34000"
    assert rows_of(client.ask(bind(name="s") + execute() + SYNC)) == [[b"0"], [b"1"], [b"2"]]


def test_two_portals_of_one_statement(client: RawClient, table: str) -> None:
    client.ask(query(f"INSERT INTO {table} SELECT g FROM generate_series(1, 4) g"))
    answer = client.ask(
        parse(f"SELECT id FROM {table} WHERE id > $1 ORDER BY id", "s")
        + bind([b"0"], portal="a", name="s")
        + bind([b"2"], portal="b", name="s")
        + execute("a", 1)
        + execute("b", 1)
        + execute("a")
        + execute("b")
        + SYNC
    )
    assert rows_of(answer) == [[b"1"], [b"3"], [b"2"], [b"3"], [b"4"], [b"4"]]


def test_a_suspended_insert_returning(client: RawClient, table: str) -> None:
    client.ask(query("BEGIN"))
    sql = f"INSERT INTO {table} SELECT g FROM generate_series(1, 3) g RETURNING id"
    answer = client.ask(parse(sql) + bind(portal="p") + execute("p", 1) + SYNC)
    assert rows_of(answer) == [[b"1"]]
    answer = client.ask(execute("p") + SYNC)
    assert rows_of(answer) == [[b"2"], [b"3"]]
    client.ask(query("COMMIT"))
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"3"]]


# -- errors --------------------------------------------------------------------------------------------------------


def test_after_an_error_everything_is_skipped_up_to_sync(client: RawClient, table: str) -> None:
    answer = client.ask(
        run(f"INSERT INTO {table} VALUES (1)")
        + run("SELECT 1 / 0")
        + run(f"INSERT INTO {table} VALUES (2)")
        + query("SELECT 3")
        + FLUSH
        + close("S", "x")
        + message(b"F", b"nonsense")
        + SYNC
    )
    assert kinds(answer) == "12nC1EZ"
    assert error_of(answer)["C"] == "22012"
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"0"]]


def test_pipelined_transactions_fail_one_by_one(client: RawClient, table: str) -> None:
    client.send(
        run(f"INSERT INTO {table} VALUES (1)") + SYNC,
        run(f"INSERT INTO {table} VALUES (1)") + SYNC,
        run(f"INSERT INTO {table} VALUES (2)") + SYNC,
    )
    answers = [client.until("Z") for _ in range(3)]
    assert [("E" in kinds(a)) for a in answers] == [False, True, False]
    assert error_of(answers[1])["C"] == "23505"
    assert rows_of(client.ask(query(f"SELECT id FROM {table} ORDER BY id"))) == [[b"1"], [b"2"]]


def test_messages_before_a_refused_one_take_place(client: RawClient) -> None:
    answer = client.ask(parse("SELECT 1", "kept") + parse("SELEC", "lost") + SYNC)
    assert kinds(answer) == "1EZ"
    assert rows_of(client.ask(bind(name="kept") + execute() + SYNC)) == [[b"1"]]
    assert error_of(client.ask(bind(name="lost") + execute() + SYNC))["C"] == "26000"


def test_a_statement_that_the_engine_refused_is_not_there(client: RawClient) -> None:
    answer = client.ask(parse("SELECT 1", "first") + parse("SELECT nothing_here", "second") + SYNC)
    assert (kinds(answer), error_of(answer)["C"]) == ("1EZ", "42703")
    assert rows_of(client.ask(bind(name="first") + execute() + SYNC)) == [[b"1"]]
    assert error_of(client.ask(bind(name="second") + execute() + SYNC))["C"] == "26000"
    # Its name is free.
    assert rows_of(client.ask(parse("SELECT 2", "second") + bind(name="second") + execute() + SYNC)) == [[b"2"]]


@pytest.mark.parametrize(
    ("sql", "declared", "values", "required"),
    [
        ("SELECT 1, generate_series(1, 3)", [], [b"1"], 0),
        ("SELECT 1, generate_series(1, 3)", [23], [b"1", b"2"], 1),
        ("SELECT $1::int", [], [], 1),
        ("SELECT $2::int, $1::int", [], [b"1"], 2),
        ("BEGIN", [], [b"1"], 0),
    ],
)
def test_as_many_values_as_parameters(
    client: RawClient, sql: str, declared: list[int], values: list[bytes], required: int
) -> None:
    answer = client.ask(parse(sql, "counted", declared), bind(values, name="counted"), execute(), SYNC)
    error = error_of(answer)
    assert error["C"] == "08P01"
    assert error["M"] == (
        f'bind message supplies {len(values)} parameters, but prepared statement "counted" requires {required}'
    )


def test_parameters_may_be_declared_and_never_named(client: RawClient) -> None:
    answer = client.ask(parse("SELECT generate_series(1, 3)", "", [23]), bind([b"7"]), execute(), SYNC)
    assert rows_of(answer) == [[b"1"], [b"2"], [b"3"]]


def test_a_name_is_taken_until_it_is_closed(client: RawClient, table: str) -> None:
    client.ask(query(f"INSERT INTO {table} VALUES (1)"))
    client.ask(parse("SELECT 'old'", "s") + SYNC)
    answer = client.ask(parse(f"DELETE FROM {table}", "s") + SYNC)
    assert error_of(answer)["C"] == "42P05"
    assert rows_of(client.ask(bind(name="s") + execute() + SYNC)) == [[b"old"]]
    client.ask(close("S", "s") + parse(f"DELETE FROM {table}", "s") + bind(name="s") + execute() + SYNC)
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"0"]]


def test_unknown_names(client: RawClient) -> None:
    assert error_of(client.ask(describe("S", "x") + SYNC))["C"] == "26000"
    assert error_of(client.ask(describe("S") + SYNC))["M"] == "unnamed prepared statement does not exist"
    assert error_of(client.ask(describe("P", "x") + SYNC))["C"] == "34000"
    assert error_of(client.ask(bind(name="x") + SYNC))["M"] == 'prepared statement "x" does not exist'
    assert error_of(client.ask(execute("x") + SYNC))["M"] == 'portal "x" does not exist'
    assert kinds(client.ask(close("S", "x") + close("P", "x") + SYNC)) == "33Z"


def test_two_statements_in_a_parse(client: RawClient) -> None:
    refusal = error_of(client.ask(parse("SELECT 1; SELECT 2") + SYNC))
    assert (refusal["C"], refusal["M"]) == ("42601", "cannot insert multiple commands into a prepared statement")


def test_positions_count_from_the_start_of_the_text(client: RawClient, table: str) -> None:
    for sql in ("  SELECT é, nope", f"\n -- é\n SELECT nope FROM {table}", f"INSERT INTO {table} (nope) VALUES (1)"):
        refusal = error_of(client.ask(parse(sql) + SYNC))
        assert refusal["C"] == "42703"
        assert sql[int(refusal["P"]) - 1 :].startswith(("nope", "é"))
    refusal = error_of(client.ask(parse("  CREATE TABLE x (a nosuchtype)") + bind() + execute() + SYNC))
    assert (refusal["C"], refusal["P"]) == ("42704", "21")


# -- blocks --------------------------------------------------------------------------------------------------------


def test_a_failed_block(client: RawClient, table: str) -> None:
    client.ask(run("BEGIN") + SYNC)
    client.ask(parse(f"SELECT id FROM {table}", "s") + bind(portal="p", name="s") + SYNC)
    assert state(client.ask(run("SELECT 1 / 0") + SYNC)) == "E"
    for refused in (
        run("SELECT 1"),
        parse("SELECT 1"),
        bind(name="s"),
        describe("S", "s"),
        execute("p"),
        run(f"INSERT INTO {table} VALUES (1)"),
        run("BEGIN"),
        run("CREATE TABLE x (id int)"),
        run("SET timezone TO 'UTC'"),
    ):
        answer = client.ask(refused + SYNC)
        assert (error_of(answer)["C"], state(answer)) == ("25P02", "E")
    assert kinds(client.ask(parse("") + close("S", "s") + SYNC)) == "13Z"
    answer = client.ask(run("COMMIT") + SYNC)
    assert [m.tag for m in answer if m.kind == "C"] == ["ROLLBACK"]
    assert state(answer) == "I"


def test_transaction_statements_are_prepared_like_others(client: RawClient, table: str) -> None:
    client.ask(parse("BEGIN", "b") + parse("COMMIT", "c") + parse("ROLLBACK", "r") + SYNC)
    assert kinds(client.ask(describe("S", "b") + SYNC)) == "tnZ"
    insert = parse(f"INSERT INTO {table} VALUES ($1)", "i")
    client.ask(insert + SYNC)
    for value, end in ((b"1", "c"), (b"2", "r"), (b"3", "c")):
        answer = client.ask(
            bind(name="b") + execute() + bind([value], name="i") + execute() + bind(name=end) + execute() + SYNC
        )
        assert kinds(answer) == "2C2C2CZ"
    assert rows_of(client.ask(query(f"SELECT id FROM {table} ORDER BY id"))) == [[b"1"], [b"3"]]


def test_begin_in_a_pipeline_keeps_what_came_before_in_the_block(client: RawClient, table: str) -> None:
    answer = client.ask(run(f"INSERT INTO {table} VALUES (1)") + run("BEGIN") + SYNC)
    assert state(answer) == "T"
    client.ask(query("ROLLBACK"))
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"0"]]


def test_the_empty_query(client: RawClient) -> None:
    assert kinds(client.ask(run("") + SYNC)) == "12nIZ"
    assert kinds(client.ask(run(" -- nothing\n ;") + SYNC)) == "12nIZ"


def test_ddl_in_the_extended_protocol(cluster: LocalCluster, client: RawClient) -> None:
    assert kinds(client.ask(run("CREATE TABLE extended_ddl (id int PRIMARY KEY, v int)") + SYNC)) == "12nCZ"
    answer = client.ask(run("CREATE INDEX ASYNC ON extended_ddl (v)") + SYNC)
    assert kinds(answer) == "12TDCZ"
    assert len(rows_of(answer)[0][0] or b"") == 26
    with connect(cluster) as other:
        assert kinds(other.ask(run("SELECT * FROM extended_ddl") + SYNC)) == "12TCZ"
    client.ask(parse("SELECT * FROM extended_ddl", "s") + SYNC)
    assert kinds(client.ask(run("DROP TABLE extended_ddl") + SYNC)) == "12nCZ"
    assert error_of(client.ask(bind(name="s") + execute() + SYNC))["C"] == "42P01"


def test_a_thousand_statements_in_one_batch(client: RawClient, table: str) -> None:
    insert = parse(f"INSERT INTO {table} VALUES ($1, $2)", "i")
    batch = b"".join(bind([b"%d" % n, b"x"], name="i") + execute() for n in range(1000))
    answer = client.ask(insert + batch + SYNC)
    assert kinds(answer) == "1" + "2C" * 1000 + "Z"
    assert rows_of(client.ask(query(f"SELECT count(*) FROM {table}"))) == [[b"1000"]]
    client.ask(query(f"DELETE FROM {table}"))


def test_deallocate_all(client: RawClient) -> None:
    client.ask(parse("SELECT 1", "a") + parse("BEGIN", "b") + SYNC)
    client.ask(query("DEALLOCATE ALL"))
    for name in ("a", "b"):
        assert error_of(client.ask(bind(name=name) + SYNC))["C"] == "26000"
    assert rows_of(client.ask(parse("SELECT 2", "a") + bind(name="a") + execute() + SYNC)) == [[b"2"]]


def test_the_unnamed_statement_stays_until_the_clients_own_query(client: RawClient) -> None:
    """Drivers without a cache of statements parse, wait, and bind; the machinery asks the engine in between."""
    for _ in range(
        2
    ):  # first before anything is known of the session's settings, and again after they may have changed
        assert kinds(client.ask(parse("SELECT $1::int + 1"), describe("S"), SYNC)) == "1tTZ"
        for value in (b"1", b"41"):
            answer = client.ask(bind([value]), execute(), SYNC)
            assert rows_of(answer) == [[b"%d" % (int(value) + 1)]]
        assert kinds(client.ask(describe("S"), SYNC)) == "tTZ"
        assert kinds(client.ask(parse("SET timezone = 'UTC'", "set"), bind(name="set"), execute(), SYNC)) == "12CZ"
        assert rows_of(client.ask(bind([b"2"]), execute(), SYNC)) == [[b"3"]]
        client.ask(close("S", "set"), SYNC)
    assert kinds(client.ask(query("SELECT 1"))) == "TDCZ"
    assert error_of(client.ask(bind([b"1"]), execute(), SYNC))["M"] == "unnamed prepared statement does not exist"


def test_an_unnamed_statement_whose_text_was_executed_before(client: RawClient, table: str) -> None:
    """It may be answered without the engine, which has to know it as soon as it is used in another way."""
    client.ask(query(f"INSERT INTO {table} VALUES (101, 'x'), (102, 'y')"))
    whole = parse(f"SELECT id FROM {table} WHERE id >= $1 AND id <= 102") + bind([b"101"])
    for _ in range(3):
        answer = client.ask(whole + describe("P") + execute() + SYNC)
        assert kinds(answer) == "12TDDCZ"
        assert rows_of(answer) == [[b"101"], [b"102"]]
    assert rows_of(client.ask(bind([b"102"]) + execute() + SYNC)) == [[b"102"]]
    assert kinds(client.ask(describe("S") + SYNC)) == "tTZ"
    # The engine has another unnamed statement meanwhile.
    assert len(rows_of(client.ask(parse(SERIES) + bind() + execute() + SYNC))) == 5
    assert kinds(client.ask(whole + execute() + SYNC)) == "12DDCZ"
    assert kinds(client.ask(describe("S") + SYNC)) == "tTZ"
    answer = client.ask(bind([b"101"]) + execute(rows_max=1) + SYNC)
    assert (kinds(answer), rows_of(answer)) == ("2DsZ", [[b"101"]])
    # A value that only the engine refuses: the statement is there all the same.
    assert error_of(client.ask(parse(f"SELECT id FROM {table} WHERE id >= $1 AND id <= 102") + bind([b"z"]) + SYNC))
    assert rows_of(client.ask(whole + execute() + SYNC)) == [[b"101"], [b"102"]]
