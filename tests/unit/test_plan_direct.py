"""Which statements storage answers by itself, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from plan_scene import ITEMS, ORDERS, STATE, USERS, Stored, T, index, plan_of, scan

from dsql_server.catalog.state import CatalogState, Table
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.rows import fields
from dsql_server.processor.access import NOT_EXACT
from dsql_server.processor.direct_answer import DIRECT_ROWS_MAX, DirectAnswer, Messages
from dsql_server.processor.direct_read import DirectRead, read_directly
from dsql_server.processor.targets import read_targets


def known(table: Table) -> Table:
    """With columns whose modifiers are known, as tables of the engine's catalog have."""
    return replace(table, columns=tuple(replace(column, modifier=-1) for column in table.columns))


KNOWN = CatalogState(1, {t.relation_id: known(t) for t in STATE.tables.values()})


@pytest.fixture
def storage() -> Stored:
    stored = Stored()
    stored.put(USERS, *((i, f"u{i}", None if i == 3 else 20 + i, "rome" if i % 2 else "oslo") for i in range(6)))
    stored.put(ORDERS, *((i, i % 3, 100 * i) for i in range(6)))
    return stored


def output(node: dict[str, Any], *columns: str) -> dict[str, Any]:
    return {**node, "Output": list(columns)}


def direct(
    sql: str, node: dict[str, Any], parameter_oids: Sequence[int] = (), state: CatalogState = KNOWN
) -> DirectRead | None:
    return read_directly(read_targets(sql), node, plan_of(sql, node, parameter_oids, state))


def rows(read: DirectRead | None, storage: Stored, *values: bytes | None, formats: Sequence[int] = ()) -> Any:
    """The answer's rows as lists of bytes; None where the engine has to answer."""
    assert read is not None
    answer = read.answering((0,), iso_dates=True, zone_is_utc=True)
    assert answer is not None
    return split(answered(answer, values, formats or (0,) * len(values), storage))


def answered(
    answer: DirectAnswer, values: Sequence[bytes | None], formats: Sequence[int], storage: Stored
) -> Messages | None:
    """What is answered, which is the same whether it is compiled or not."""
    try:
        found = answer.messages(values, formats, storage, T)
    except NOT_EXACT:
        with pytest.raises(NOT_EXACT):
            answer.messages_in_python(values, formats, storage, T)
        raise
    assert found == answer.messages_in_python(values, formats, storage, T)
    return found


def split(messages: Messages | None) -> Any:
    """The fields of DataRow messages that stand one behind the other."""
    if messages is None:
        return None
    data, count = messages
    found = []
    while data:
        end = int.from_bytes(data[1:5], "big") + 1
        assert data[:1] == b"D" and end <= len(data)
        found.append(fields(data[5:end]))
        data = data[end:]
    assert len(found) == count
    return found


BY_KEY = output(scan(USERS, Index_Cond="(users.id = $1)"), "email", "age")
SELECT = "SELECT email, age FROM users WHERE id = $1"
INT = (oids.INT4,)


def test_a_row_by_its_key(storage: Stored) -> None:
    read = direct(SELECT, BY_KEY, INT)
    assert rows(read, storage, b"1") == [[b"u1", b"21"]]
    assert rows(read, storage, b"3") == [[b"u3", None]]
    assert rows(read, storage, b"77") == []
    assert rows(read, storage, None) == []


def test_all_conditions_are_checked(storage: Stored) -> None:
    node = output(scan(USERS, Index_Cond="(users.city = 'rome'::text)", Filter="(users.age >= $1)"), "id")
    read = direct("SELECT id FROM users WHERE city = 'rome' AND age >= $1", node, INT)
    assert rows(read, storage, b"0") == [[b"1"], [b"5"]]
    assert rows(read, storage, b"25") == [[b"5"]]


def test_a_stale_index_entry_finds_nothing(storage: Stored) -> None:
    node = output(scan(USERS, Index_Cond="(users.email = $1)"), "id")
    read = direct("SELECT id FROM users WHERE email = $1", node, (oids.TEXT,))
    assert rows(read, storage, b"u1") == [[b"1"]]
    key = next(key for key, value in storage.rows.items() if key[:4] == (1000).to_bytes(4, "big") and b"u1" in value)
    storage.rows[key] = storage.rows[key].replace(b"u1", b"v1")
    assert rows(read, storage, b"u1") == []


def test_scans_with_conditions_of_their_own_are_paired(storage: Stored) -> None:
    users = scan(USERS, "u", Index_Cond="(u.id = $1)")
    orders = scan(ORDERS, "o", Index_Cond="(o.user_id = $1)")
    node = {"Node Type": "Nested Loop", "Join Type": "Inner", "Plans": [users, orders]}
    sql = "SELECT o.id, u.email, o.total FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = $1"
    read = direct(sql, output(node, "o.id", "u.email", "o.total"), INT)
    assert rows(read, storage, b"1") == [[b"1", b"u1", b"100"], [b"4", b"u1", b"400"]]
    assert rows(read, storage, b"5") == []
    filtered = {**node, "Join Filter": "(u.id = o.user_id)"}
    assert direct(sql, output(filtered, "o.id", "u.email", "o.total"), INT) is None
    leaning = {**node, "Plans": [users, scan(ORDERS, "o", Index_Cond="(o.user_id = u.id)")]}
    assert direct(sql, output(leaning, "o.id", "u.email", "o.total"), INT) is None
    assert direct(sql, output({**node, "Join Type": "Left"}, "o.id", "u.email", "o.total"), INT) is None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT DISTINCT email, age FROM users WHERE id = $1",
        "SELECT email, age FROM users WHERE id = $1 ORDER BY age + 1",
        "SELECT email, age FROM users WHERE id = $1 ORDER BY age NULLS FIRST",
        "SELECT email AS age FROM users WHERE id = $1 ORDER BY age",
        "SELECT email, age FROM users WHERE id = $1 LIMIT 1",
        "SELECT email, age FROM users WHERE id = $1 FOR UPDATE",
        "SELECT email, age FROM a_view WHERE id = $1",
        "SELECT email, age FROM (SELECT * FROM users ORDER BY age) s WHERE id = $1",
        "WITH u AS (SELECT 1) SELECT email, age FROM users WHERE id = $1",
        "SELECT a.email, a.age FROM users AS a (id, email, age) WHERE id = $1",
    ],
)
def test_anything_but_columns_under_conditions_is_the_engines(sql: str) -> None:
    assert direct(sql, BY_KEY, INT) is None


@pytest.mark.parametrize(
    "node",
    [
        output(BY_KEY, "lower(email)"),
        output(BY_KEY, "email", "ctid"),
        output(BY_KEY, "users.*"),
        {**BY_KEY, "Filter": "(lower(users.email) = 'x'::text)"},
        {**BY_KEY, "Plans": [scan(USERS)]},
        {**BY_KEY, "Node Type": "Function Scan"},
        {**BY_KEY, "Index Name": "a partial one"},
    ],
)
def test_plans_with_anything_else_are_the_engines(node: dict[str, Any]) -> None:
    assert direct(SELECT, node, INT) is None


def test_conditions_that_a_partial_index_implies_are_not_in_its_plan() -> None:
    partial = index(1004, "adults", [3], [oids.INT4], predicate="(age > 17)")
    users = replace(known(USERS), indexes=(*USERS.indexes, partial))
    state = CatalogState(1, {1000: users})
    node = output(scan(USERS, Index_Cond="(users.age < $1)"), "id")
    sql = "SELECT id FROM users WHERE age < $1 AND age > 17"
    assert direct(sql, {**node, "Index Name": "adults"}, INT, state) is None
    assert direct(sql, {**node, "Index Name": "users_city_age"}, INT, state) is not None


def test_every_parameter_is_looked_at_even_where_no_row_is(storage: Stored) -> None:
    read = direct(SELECT, BY_KEY, INT)
    for value, value_format in ((b"one", 0), (b"\0\0\0", 1), (b"99999999999", 0)):
        with pytest.raises(NOT_EXACT):
            rows(read, storage, value, formats=(value_format,))
    assert rows(read, storage, b"\0\0\0\1", formats=(1,)) == [[b"u1", b"21"]]
    assert rows(read, storage) is None
    # A parameter that no condition shows may still be refused by its type.
    assert direct("SELECT email, age FROM users WHERE id = 1 AND $1 = $1", output(scan(USERS), "email"), INT) is None


@pytest.mark.parametrize("value", [b"a\0b", b"\xff"])
def test_texts_that_postgresql_refuses(storage: Stored, value: bytes) -> None:
    node = output(scan(USERS, Index_Cond="(users.email = $1)"), "id")
    read = direct("SELECT id FROM users WHERE email = $1", node, (oids.TEXT,))
    for value_format in (0, 1):
        with pytest.raises(NOT_EXACT):
            rows(read, storage, value, formats=(value_format,))


def test_a_column_of_a_domain_is_the_engines() -> None:
    assert direct(SELECT, BY_KEY, INT, STATE) is None  # these columns' modifiers aren't known


def test_rows_from_before_a_column_was_added(storage: Stored) -> None:
    columns = known(ITEMS).columns
    wider = replace(ITEMS, columns=(*columns, replace(columns[-1], number=4, name="added")))
    storage.put(ITEMS, (1, 1, "old"))
    node = output(scan(ITEMS, Index_Cond="(items.order_id = 1)"), "added", "note")
    read = direct("SELECT added, note FROM items WHERE order_id = 1", node, state=CatalogState(1, {1020: wider}))
    assert rows(read, storage) == [[None, b"old"]]


def test_many_rows_are_the_engines(storage: Stored) -> None:
    storage.put(ORDERS, *((100 + i, 9, i) for i in range(DIRECT_ROWS_MAX + 1)))
    node = output(scan(ORDERS, Index_Cond="(orders.user_id = $1)"), "id")
    read = direct("SELECT id FROM orders WHERE user_id = $1", node, INT)
    assert rows(read, storage, b"9") is None
    assert len(rows(read, storage, b"1")) == 2


def test_result_formats(storage: Stored) -> None:
    read = direct(SELECT, BY_KEY, INT)
    assert read is not None
    for formats, expected in (((), b"21"), ((1,), b"\0\0\0\x15"), ((0, 1), b"\0\0\0\x15"), ((1, 0), b"21")):
        answer = read.answering(formats, iso_dates=True, zone_is_utc=True)
        assert answer is not None
        assert split(answered(answer, (b"1",), (0,), storage))[0][1] == expected
    for wrong in ((0, 0, 0), (2,)):
        assert read.answering(wrong, iso_dates=True, zone_is_utc=True) is None


def test_rows_come_in_their_order_without_the_columns_that_only_sort(storage: Stored) -> None:
    sql = "SELECT id FROM users WHERE id < $1 ORDER BY city DESC, age"
    sort = {"Node Type": "Sort", "Plans": [scan(USERS, Index_Cond="(users.id < $1)")]}
    node = output(sort, "id", "city", "age")
    read = read_directly(read_targets(sql), node, plan_of(sql, node, INT, KNOWN), 1)
    # Rome before Oslo; the NULL age of number 3 behind all others.
    assert rows(read, storage, b"6") == [[b"1"], [b"5"], [b"3"], [b"0"], [b"2"], [b"4"]]
