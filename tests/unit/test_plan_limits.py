"""LIMIT in storage: only where the scan's order and all of its conditions are storage's own."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from plan_scene import USERS, Stored, T, plan_of, scan

from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.rows import fields
from dsql_server.processor.access import Bound
from dsql_server.processor.plan import LoadPlan


@pytest.fixture
def storage() -> Stored:
    stored = Stored()
    stored.put(USERS, *((i, f"u{i}", 20 + i % 2, "rome") for i in range(20)))
    return stored


def limit(node: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"Node Type": "Limit", "Plans": [node], **more}


def by(name: str, direction: str = "Forward", **conditions: str) -> dict[str, Any]:
    return {**scan(USERS, **conditions), "Index Name": name, "Scan Direction": direction}


def loaded(plan: LoadPlan, storage: Stored, *values: bytes | None, dirty: bool = False) -> list[int]:
    bound = Bound(values, (0,) * len(values), dirty={1000} if dirty else set())
    rows = [row for _, found in plan.rows(bound, storage, T) for row in found]
    return sorted(struct.unpack(">i", fields(value)[0] or b"")[0] for _, value in rows)


EVERYTHING = list(range(20))
FIRST = "SELECT * FROM users ORDER BY id LIMIT 3"


def test_the_first_rows_by_primary_key(storage: Stored) -> None:
    assert loaded(plan_of(FIRST, limit(by("users_pkey"))), storage) == [0, 1, 2]
    last = plan_of("SELECT * FROM users ORDER BY id DESC LIMIT 2", limit(by("users_pkey", "Backward")))
    assert loaded(last, storage) == [18, 19]
    assert last.scans[0].access.describe == "first rows by full scan"
    assert last.scans[0].access.restricted


def test_the_count_may_be_a_parameter_and_an_offset_adds_to_it(storage: Stored) -> None:
    sql = "SELECT * FROM users WHERE id > $1 ORDER BY id LIMIT $2 OFFSET $3"
    node = limit(by("users_pkey", Index_Cond="(users.id > $1)"))
    plan = plan_of(sql, node, (oids.INT4, oids.INT8, oids.INT8))
    assert loaded(plan, storage, b"4", b"2", b"1") == [5, 6, 7]
    assert loaded(plan, storage, b"4", None, b"1") == list(range(5, 20))
    assert loaded(plan, storage, b"4", b"2", None) == [5, 6]
    assert loaded(plan, storage, b"4", b"-1", b"0") == list(range(5, 20))
    assert loaded(plan, storage, b"what?", b"2", b"0") == EVERYTHING


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM users ORDER BY id OFFSET 1",
        "SELECT * FROM users OFFSET 1 ROWS",
        "SELECT * FROM (SELECT * FROM users ORDER BY id OFFSET 1) AS later",
    ],
)
def test_an_offset_alone_wants_all_rows(storage: Stored, sql: str) -> None:
    """PostgreSQL's plan of it is the one of ``max``: a Limit."""
    assert loaded(plan_of(sql, limit(by("users_pkey"))), storage) == EVERYTHING


def test_conditions_that_storage_applies_count(storage: Stored) -> None:
    sql = "SELECT * FROM users WHERE age = 21 ORDER BY id LIMIT 3"
    assert loaded(plan_of(sql, limit(by("users_pkey", Filter="(users.age = 21)"))), storage) == [1, 3, 5]


@pytest.mark.parametrize(
    "condition", ["((users.age % 2) = 1)", "((users.age = 21) AND (random() < 0.5))", "(SubPlan 1)"]
)
def test_conditions_that_storage_does_not_apply_need_all_rows(storage: Stored, condition: str) -> None:
    plan = plan_of("SELECT * FROM users WHERE f() ORDER BY id LIMIT 3", limit(by("users_pkey", Filter=condition)))
    assert set(loaded(plan, storage)) >= {1, 3, 19}


def test_an_index_in_its_own_order(storage: Stored) -> None:
    sql = "SELECT * FROM users WHERE city = 'rome' ORDER BY age DESC LIMIT 2"
    node = limit(by("users_city_age", "Backward", Index_Cond="(users.city = 'rome'::text)"))
    assert len(loaded(plan_of(sql, node), storage)) == 2
    # Another index than the one that PostgreSQL reads in order would give other first rows.
    other = limit(by("users_pkey", Index_Cond="(users.city = 'rome'::text)"))
    assert loaded(plan_of("SELECT * FROM users WHERE city = 'rome' ORDER BY id LIMIT 2", other), storage) == EVERYTHING
    unordered = plan_of("SELECT * FROM users WHERE city = 'rome' LIMIT 2", other)
    assert len(loaded(unordered, storage)) == 2


def test_a_residual_condition_on_an_index_needs_all_of_its_rows(storage: Stored) -> None:
    node = by("users_city_age", Index_Cond="(users.city = 'rome'::text)", Filter="(users.email = 'u7'::text)")
    node["Filter"] = "(users.email > 'u7'::text)"
    sql = "SELECT * FROM users WHERE city = 'rome' AND email > 'u7' ORDER BY age LIMIT 2"
    assert len(loaded(plan_of(sql, limit(node)), storage)) == 20


def test_rows_of_the_transaction_come_between(storage: Stored) -> None:
    assert loaded(plan_of(FIRST, limit(by("users_pkey"))), storage, dirty=True) == EVERYTHING


def test_entries_without_a_row_are_passed_over(storage: Stored) -> None:
    keys = sorted(k for k in storage.rows if k.startswith(struct.pack(">I", 1000)))
    for key in keys[:5]:
        del storage.rows[key]  # the entries stay
    sql = "SELECT * FROM users WHERE city = 'rome' ORDER BY age LIMIT 8"
    node = limit(by("users_city_age", Index_Cond="(users.city = 'rome'::text)"))
    assert len(loaded(plan_of(sql, node), storage)) >= 8


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM (SELECT * FROM users LIMIT 3) u",
        "SELECT * FROM users ORDER BY id FETCH FIRST 3 ROWS WITH TIES",
        "SELECT * FROM users ORDER BY id LIMIT 1 + 2",
        "SELECT * FROM users ORDER BY id LIMIT ALL OFFSET 3",
        "INSERT INTO users SELECT * FROM users ORDER BY id LIMIT 3",
    ],
)
def test_other_limits_are_not_followed(storage: Stored, sql: str) -> None:
    assert loaded(plan_of(sql, limit(by("users_pkey"))), storage) == EVERYTHING


def test_a_limit_below_the_top_is_not_the_statements(storage: Stored) -> None:
    inner = {"Node Type": "Sort", "Plans": [limit(by("users_pkey"))]}
    sql = "SELECT * FROM (SELECT * FROM users ORDER BY id LIMIT 9) u ORDER BY age LIMIT 3"
    assert loaded(plan_of(sql, inner), storage) == EVERYTHING


def test_the_greatest_key_is_one_row(storage: Stored) -> None:
    node = by("users_pkey", "Backward", Index_Cond="(users.id IS NOT NULL)")
    plan = {"Node Type": "Result", "Plans": [limit(node, **{"Subplan Name": "InitPlan 1 (returns $0)"})]}
    assert loaded(plan_of("SELECT max(id) FROM users", plan), storage) == [19]
    # With a LIMIT anywhere in the text this one might be that.
    limited = plan_of("SELECT max(id), (SELECT 1 LIMIT 1) FROM users", plan)
    assert loaded(limited, storage) == EVERYTHING


def test_a_correlated_extreme_is_one_row_for_each(storage: Stored) -> None:
    inner = limit(by("users_pkey", "Backward", Index_Cond="((users.id IS NOT NULL) AND (users.id < u.age))"))
    correlated = limit(by("users_pkey", "Backward", Index_Cond="(users.id IS NOT NULL)", Filter="(users.age = u.age)"))
    for node in (inner, correlated):
        plan = {**scan(USERS, "u"), "Plans": [{"Node Type": "Result", "Plans": [node]}]}
        sql = "SELECT (SELECT max(id) FROM users WHERE users.age = u.age) FROM users u"
        assert loaded(plan_of(sql, plan), storage) == EVERYTHING


def test_locking_passes_a_limit_on(storage: Stored) -> None:
    locked = {"Node Type": "LockRows", "Plans": [by("users_pkey")]}
    assert loaded(plan_of(f"{FIRST} FOR UPDATE", limit(locked)), storage) == [0, 1, 2]


def test_stale_entries_take_nobodys_place(storage: Stored) -> None:
    """A build of an index beside an update may leave an entry of the row's old value."""
    encoder = next(encoder for index, encoder in USERS.plain_indexes if index.name == "users_email")
    key = next(k for k, v in storage.rows.items() if k[:4] == struct.pack(">I", 1000) and b"u7" in v)
    entry = encoder.from_row(storage.rows[key])
    storage.rows[entry.replace(b"u7", b"a7") + key[4:]] = key
    node = limit(by("users_email", Index_Cond="(users.email > 'a'::text)"))
    plan = plan_of("SELECT * FROM users WHERE email > 'a' ORDER BY email LIMIT 2", node)
    assert plan.scans[0].access.describe.startswith("first rows by index users_email")
    assert set(loaded(plan, storage)) >= {0, 1}
