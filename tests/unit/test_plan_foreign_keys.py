"""The rows that foreign keys make a write load: parents of new values, and what actions reach, by value."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from plan_scene import ITEMS, ORDERS, STATE, TREE, USERS, Stored, T, modify, plan_of, result, scan

from dsql_server.catalog.state import CatalogState
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.rows import fields
from dsql_server.processor.access import Bound
from dsql_server.processor.plan import LoadPlan

INT = oids.INT4


@pytest.fixture
def storage() -> Stored:
    stored = Stored()
    stored.put(USERS, *((i, f"u{i}", None, None) for i in range(5)))
    stored.put(ORDERS, *((10 * u + n, u, 0) for u in range(5) for n in range(2)))
    stored.put(ITEMS, *((10 * u + n, 1, "x") for u in range(5) for n in range(2)))
    return stored


def loaded(plan: LoadPlan, storage: Stored, bound: Bound | None = None) -> dict[str, set[int]]:
    """First columns of the rows to load, by table."""
    found: dict[str, set[int]] = {}
    for table, rows in plan.rows(bound or Bound((), ()), storage, T):
        numbers = {struct.unpack(">i", fields(value)[0] or b"")[0] for _, value in rows}
        found.setdefault(table.name, set()).update(numbers)
    return {name: numbers for name, numbers in found.items() if numbers}


def bound(*values: bytes | None) -> Bound:
    return Bound(values, (0,) * len(values))


def test_an_insert_loads_the_parent_that_it_names(storage: Stored) -> None:
    source = modify(ORDERS, "Insert", result("$1", "$2", "0"))
    plan = plan_of("INSERT INTO orders VALUES ($1, $2, 0)", source, (INT, INT), STATE)
    assert plan.key_shared == [USERS]
    assert not plan.side_effects
    assert loaded(plan, storage, bound(b"99", b"3")) == {"users": {3}}
    assert loaded(plan, storage, bound(b"99", b"77")) == {}
    assert loaded(plan, storage, bound(b"99", None)) == {}
    assert not storage.scans
    assert loaded(plan, storage, bound(b"99", b"what?"))["users"] == set(range(5))


def test_an_insert_from_a_query_loads_the_parents_of_the_rows_found(storage: Stored) -> None:
    found = {**scan(USERS, "u", Index_Cond="(u.id < 2)"), "Output": ["(u.id + 100)", "u.id", "0"]}
    plan = plan_of(
        "INSERT INTO orders SELECT id + 100, id, 0 FROM users AS u", modify(ORDERS, "Insert", found), (), STATE
    )
    assert loaded(plan, storage) == {"users": {0, 1}}
    unknown = {**found, "Output": ["u.id", "(u.id % 2)", "0"]}
    plan = plan_of(
        "INSERT INTO orders SELECT id, id % 2, 0 FROM users AS u", modify(ORDERS, "Insert", unknown), (), STATE
    )
    assert loaded(plan, storage)["users"] == set(range(5))


def test_an_update_of_other_columns_looks_at_no_parent(storage: Stored) -> None:
    source = modify(ORDERS, "Update", scan(ORDERS, Index_Cond="(orders.id = 21)"))
    plan = plan_of("UPDATE orders SET total = 5 WHERE id = 21", source, (), STATE)
    assert not plan.key_shared
    assert loaded(plan, storage) == {"orders": {21}}
    # Changed before in the same transaction, the row is checked again.
    again = Bound((), (), dirty={ORDERS.relation_id}, loaded={ORDERS.relation_id: {}})
    assert loaded(plan, storage, again) == {"orders": {21}, "users": {2}}


def test_an_update_of_the_key_loads_the_new_parent(storage: Stored) -> None:
    source = modify(ORDERS, "Update", scan(ORDERS, Index_Cond="(orders.id = 21)"))
    plan = plan_of("UPDATE orders SET user_id = $1 WHERE id = 21", source, (INT,), STATE)
    assert plan.key_shared == [USERS]
    assert loaded(plan, storage, bound(b"4")) == {"orders": {21}, "users": {4}}
    plan = plan_of("UPDATE orders SET user_id = user_id + 1 WHERE id = 21", source, (), STATE)
    assert loaded(plan, storage)["users"] == set(range(5))


def test_a_delete_loads_what_its_cascade_reaches(storage: Stored) -> None:
    source = modify(USERS, "Delete", scan(USERS, Index_Cond="(users.id = 3)"))
    plan = plan_of("DELETE FROM users WHERE id = 3", source, (), STATE)
    assert {t.name for t in plan.side_effects} == {"orders", "items"}
    assert plan.losing == {USERS.relation_id}
    # SET NULL reaches the primary key of items, so what becomes of it is asked for.
    assert plan.verified == [ITEMS]
    assert loaded(plan, storage) == {"users": {3}, "orders": {30, 31}, "items": {30, 31}}


def test_an_update_that_moves_no_referenced_key_reaches_no_child(storage: Stored) -> None:
    source = modify(USERS, "Update", scan(USERS, Index_Cond="(users.id = 3)"))
    plan = plan_of("UPDATE users SET age = 5 WHERE id = 3", source, (), STATE)
    assert plan.foreign_keys is None
    assert not plan.side_effects
    assert loaded(plan, storage) == {"users": {3}}
    moved = plan_of("UPDATE users SET id = 9 WHERE id = 3", source, (), STATE)
    assert [t.name for t in moved.side_effects] == ["orders"]
    assert loaded(moved, storage)["orders"] == {30, 31}


def test_rows_that_the_transaction_changed_count_whatever_the_scan_finds(storage: Stored) -> None:
    source = modify(USERS, "Delete", scan(USERS, Filter="(users.age = 50)"))
    plan = plan_of("DELETE FROM users WHERE age = 50", source, (), STATE)
    assert loaded(plan, storage) == {}
    key = next(k for k in sorted(storage.rows) if k.startswith(struct.pack(">I", 1000)))
    changed = Bound((), (), dirty={1000}, loaded={1000: {key: storage.rows[key]}})
    assert loaded(plan, storage, changed) == {"orders": {0, 1}, "items": {0, 1}}


def test_long_chains_are_followed_to_their_end() -> None:
    stored = Stored()
    stored.put(TREE, *((i, i - 1 if i else None) for i in range(1500)))
    source = modify(TREE, "Delete", scan(TREE, Index_Cond="(tree.id = 10)"))
    plan = plan_of("DELETE FROM tree WHERE id = 10", source, (), STATE)
    assert loaded(plan, stored)["tree"] == set(range(10, 1500))


def test_unvalidated_keys_and_other_types_take_whole_tables(storage: Stored) -> None:
    unvalidated = replace(ORDERS, foreign_keys=(replace(ORDERS.foreign_keys[0], validated=False),))
    state = CatalogState(1, {t.relation_id: t for t in (USERS, unvalidated)})
    source = modify(USERS, "Delete", scan(USERS, Index_Cond="(users.id = 3)"))
    plan = plan_of("DELETE FROM users WHERE id = 3", source, (), state)
    assert len(loaded(plan, storage)["orders"]) == 10
    columns = (ORDERS.columns[0], replace(ORDERS.columns[1], type_oid=oids.NUMERIC), ORDERS.columns[2])
    other_type = replace(ORDERS, columns=columns, indexes=())
    state = CatalogState(1, {t.relation_id: t for t in (USERS, other_type)})
    plan = plan_of("DELETE FROM users WHERE id = 3", source, (), state)
    assert len(loaded(plan, storage)["orders"]) == 10


def test_set_default_may_name_any_parent(storage: Stored) -> None:
    default = replace(ORDERS, foreign_keys=(replace(ORDERS.foreign_keys[0], on_delete="d"),))
    state = CatalogState(1, {t.relation_id: t for t in (USERS, default)})
    source = modify(USERS, "Delete", scan(USERS, Index_Cond="(users.id = 3)"))
    plan = plan_of("DELETE FROM users WHERE id = 3", source, (), state)
    assert plan.key_shared == [USERS]
    assert loaded(plan, storage) == {"users": set(range(5)), "orders": {30, 31}}


def test_only_deferrable_keys_defer_checks() -> None:
    source = modify(ORDERS, "Insert", result("1", "1", "0"))
    assert not plan_of("INSERT INTO orders VALUES (1, 1, 0)", source, (), STATE).may_defer_checks
    deferrable = replace(ORDERS, foreign_keys=(replace(ORDERS.foreign_keys[0], deferrable=True),))
    state = CatalogState(1, {t.relation_id: t for t in (USERS, deferrable)})
    assert plan_of("INSERT INTO orders VALUES (1, 1, 0)", source, (), state).may_defer_checks
    assert state.may_defer_checks
    assert not STATE.may_defer_checks
