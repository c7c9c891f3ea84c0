"""What a write needs besides its own scans: as little as its own columns and values allow."""

from __future__ import annotations

import struct

import pytest
from plan_scene import PLAIN, STATE, USERS, Stored, T, index, modify, plan_of, result, scan, table

from dsql_server.catalog.state import CatalogState
from dsql_server.encoding import type_oids as oids
from dsql_server.processor.access import Bound
from dsql_server.processor.plan import LoadPlan, copy_plan
from dsql_server.processor.plan_reader import PlanReader
from dsql_server.processor.targets import Targets, read_targets

INT, TEXT = oids.INT4, oids.TEXT


def update(assignments: str, parameter_oids: tuple[int, ...] = (), alias: str | None = None) -> LoadPlan:
    name = f"users AS {alias}" if alias else "users"
    sql = f"UPDATE {name} SET {assignments} WHERE id = 7"
    source = scan(USERS, alias, Index_Cond=f"({alias or 'users'}.id = 7)")
    return plan_of(sql, modify(USERS, "Update", source, alias), parameter_oids)


def loaded(plan: LoadPlan, storage: Stored, *values: bytes | None, dirty: frozenset[int] = frozenset()) -> set[int]:
    bound = Bound(values, (0,) * len(values), dirty=dirty)
    rows = [row for table_, found in plan.rows(bound, storage, T) if table_ is USERS for row in found]
    return {struct.unpack_from(">i", value, 6)[0] for _, value in rows}


@pytest.fixture
def storage() -> Stored:
    stored = Stored()
    stored.put(USERS, *((i, f"u{i}", 20, "rome") for i in range(10)))
    return stored


# -- UPDATE and DELETE -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alias", [None, "u"])
def test_an_update_of_other_columns_asks_for_nothing_more(alias: str | None, storage: Stored) -> None:
    plan = update("age = $1, city = 'x'", (INT,), alias)
    assert plan.written == [USERS]
    assert not plan.verify_keys
    assert not plan.losing
    assert not plan.whole
    assert not plan.neighbours
    assert plan.foreign_keys is None
    assert [s.access.describe for s in plan.scans] == ["primary key"]
    assert loaded(plan, storage, b"5") == {7}
    assert storage.gets == 1


def test_a_known_unique_value_loads_its_holder(storage: Stored) -> None:
    plan = update("email = $1", (TEXT,))
    assert not plan.verify_keys
    assert not plan.losing
    assert loaded(plan, storage, b"u3") == {3, 7}
    assert loaded(plan, storage, b"free") == {7}
    assert loaded(plan, storage, None) == {7}


@pytest.mark.parametrize("assignment", ["email = email || 'x'", "(email, age) = (SELECT 'x', 1)"])
def test_an_unknown_unique_value_is_asked_for(assignment: str) -> None:
    plan = update(assignment)
    assert plan.verified == [USERS]
    assert not plan.losing


def test_an_update_of_the_primary_key_may_lose_rows() -> None:
    assert update("id = $1", (INT,)).losing == {1000}
    assert update("id = id + 1").verified == [USERS]


def test_a_delete_may_lose_rows_and_collides_with_nothing() -> None:
    plan = plan_of("DELETE FROM users WHERE id = 7", modify(USERS, "Delete", scan(USERS, Index_Cond="(users.id = 7)")))
    assert plan.losing == {1000}
    assert not plan.verify_keys


def test_an_update_through_a_view_may_set_any_column() -> None:
    source = modify(USERS, "Update", scan(USERS))
    through_view = plan_of("UPDATE users_view SET age = 5", source)
    assert through_view.losing == {1000}
    assert through_view.verified == [USERS]
    same_name = PlanReader(source, PLAIN, (), read_targets("UPDATE s.users SET age = 5"), frozenset({"users"})).read()
    assert same_name.losing == {1000}


def test_two_updates_of_one_table_may_set_any_column() -> None:
    sql = "WITH w AS (UPDATE users SET age = 1 RETURNING *) UPDATE users_view SET a = 2"
    first = modify(USERS, "Update", scan(USERS, "users_1"), "users_1")
    second = modify(USERS, "Update", scan(USERS))
    second["Plans"].append(first)
    assert plan_of(sql, second).losing == {1000}


def test_generated_columns_follow_the_others() -> None:
    from dataclasses import replace

    columns = tuple(replace(c, generated=c.name == "email") for c in USERS.columns)
    generated = replace(USERS, columns=columns)
    state = CatalogState(1, {1000: generated})
    plan = plan_of("UPDATE users SET age = 1", modify(generated, "Update", scan(generated)), state=state)
    assert plan.verified == [generated]


# -- partial and expression indexes ----------------------------------------------------------------------------------


def members(*indexes: object) -> CatalogState:
    columns = {"id": INT, "email": TEXT, "age": INT, "city": TEXT}
    return CatalogState(1, {1000: table(1000, "users", columns, indexes=indexes)})  # type: ignore[arg-type]


PARTIAL = index(1005, "users_partial", [2], [TEXT], unique=True, predicate="(age > 18)")
EXPRESSION = index(1006, "users_lower", [0], [TEXT], unique=True, expressions=("lower(email)",))


def test_a_partial_index_is_compared_with_rows_of_the_same_key() -> None:
    state = members(PARTIAL)
    users = state.tables[1000]
    stored = Stored()
    stored.put(users, *((i, f"u{i % 3}", 20, None) for i in range(6)))
    source = modify(users, "Update", scan(users, Index_Cond="(users.id = 4)"))

    def rows(sql: str, parameter_oids: tuple[int, ...] = (), *values: bytes, dirty: bool = False) -> set[int]:
        plan = plan_of(sql, source, parameter_oids, state)
        assert not plan.whole
        assert not plan.verify_keys
        bound = Bound(values, (0,) * len(values), dirty={1000} if dirty else set())
        found = [row for _, found in plan.rows(bound, stored, T) for row in found]
        return {struct.unpack_from(">i", value, 6)[0] for _, value in found}

    assert rows("UPDATE users SET city = 'x' WHERE id = 4") == {4}
    assert rows("UPDATE users SET age = 50 WHERE id = 4") == {4, 1}
    assert rows("UPDATE users SET age = 50 WHERE id = 4", dirty=True) == set(range(6))
    assert rows("UPDATE users SET email = $1 WHERE id = 4", (TEXT,), b"u2") == {4, 2, 5}
    plan = plan_of("UPDATE users SET email = lower(email) WHERE id = 4", source, state=state)
    assert plan.whole == [users]


def test_an_expression_index_takes_the_whole_table() -> None:
    state = members(EXPRESSION)
    users = state.tables[1000]
    source = modify(users, "Update", scan(users, Index_Cond="(users.id = 4)"))
    assert plan_of("UPDATE users SET email = 'x' WHERE id = 4", source, state=state).whole == [users]
    assert not plan_of("UPDATE users SET age = 5 WHERE id = 4", source, state=state).whole
    inserted = plan_of(
        "INSERT INTO users VALUES (1)", modify(users, "Insert", result("1", *["NULL::text"] * 3)), (), state
    )
    assert inserted.whole == [users]
    assert inserted.insert is None  # the engine, having every row, checks all keys itself
    assert not inserted.verify_keys


# -- INSERT ----------------------------------------------------------------------------------------------------------


def insert(
    sql: str, source: dict[str, object], parameter_oids: tuple[int, ...] = (), state: CatalogState = PLAIN, **more: str
) -> LoadPlan:
    return plan_of(sql, modify(USERS, "Insert", source, **more), parameter_oids, state)


def test_known_keys_are_looked_up_without_the_engine(storage: Stored) -> None:
    plan = insert("INSERT INTO users VALUES ($1, $2)", result("$1", "$2", "NULL::integer", "NULL::text"), (INT, TEXT))
    assert plan.single_insert_only
    assert plan.insert is not None
    assert plan.insert.complete
    assert [i.name for i, _ in plan.insert.keys] == ["users_pkey", "users_email"]
    assert not plan.verify_keys
    assert loaded(plan, storage, b"3", b"u5") == {3, 5}
    assert loaded(plan, storage, b"30", None) == set()
    assert loaded(plan, storage, b"what?", b"u5") == set(range(10))


def test_random_keys_need_no_look_up() -> None:
    tokens = table(1000, "users", {"id": oids.UUID, "age": INT})
    state = CatalogState(1, {1000: tokens})
    source = modify(tokens, "Insert", result("gen_random_uuid()", "$1"))
    plan = plan_of("INSERT INTO users (age) VALUES ($1)", source, (INT,), state)
    assert plan.single_insert_only
    assert plan.insert is not None
    assert not plan.insert.keys
    assert not plan.loads


def test_a_key_from_a_sequence_is_asked_of_the_session() -> None:
    drawn = "nextval('public.\"a''b\"'::regclass)"
    plan = insert("INSERT INTO users DEFAULT VALUES", result(drawn, *["NULL::text"] * 3))
    assert plan.single_insert_only
    assert plan.insert is not None
    assert [(i.name, name) for i, name in plan.insert.drawn] == [("users_pkey", "'public.\"a''b\"'")]
    assert not plan.verify_keys
    identity = insert("INSERT INTO users DEFAULT VALUES", result("nextval('s')", *["NULL::text"] * 3))
    assert identity.insert is not None
    assert [name for _, name in identity.insert.drawn] == ["'s'"]
    twice = insert(
        "INSERT INTO users VALUES (DEFAULT, 'x', nextval('t'))", result(drawn, "'x'::text", drawn, "NULL::text")
    )
    assert twice.verified == [USERS]


@pytest.mark.parametrize("output", ["(nextval('s'::regclass) + 1)", "(($1)::bigint + 1)", "(SubPlan 1)", "($1)::date"])
def test_unknown_keys_are_asked_for(output: str) -> None:
    plan = insert("INSERT INTO users VALUES (f())", result(output, *["NULL::text"] * 3), (INT,))
    assert plan.verified == [USERS]
    assert not plan.single_insert_only


def test_on_conflict_needs_the_holders_before_it_runs(storage: Stored) -> None:
    sql = "INSERT INTO users VALUES ($1, 'u2') ON CONFLICT (id) DO NOTHING"
    source = result("$1", "'u2'::text", "NULL::integer", "NULL::text")
    plan = insert(sql, source, (INT,), Conflict_Resolution="NOTHING")
    assert loaded(plan, storage, b"8") == {8, 2}
    unknown = insert(sql, result("nextval('s'::regclass)", *["NULL::text"] * 3), (INT,), Conflict_Resolution="NOTHING")
    assert unknown.whole == [USERS]


def test_many_rows_by_their_values(storage: Stored) -> None:
    sql = "INSERT INTO users (id, email) VALUES (3, $1), ($2, NULL), (40, 'u9') ON CONFLICT DO NOTHING"
    outputs = ['"*VALUES*".column1', '"*VALUES*".column2', "NULL::integer", "NULL::text"]
    source = {"Node Type": "Values Scan", "Alias": "*VALUES*", "Output": outputs}
    plan = insert(sql, source, (TEXT, INT), Conflict_Resolution="NOTHING")
    assert plan.single_insert_only
    assert loaded(plan, storage, b"u1", b"6") == {3, 1, 6, 9}


def test_rows_of_another_insert_are_not_taken_for_these() -> None:
    sql = "WITH w AS (INSERT INTO a.users VALUES (1), (2) RETURNING *) INSERT INTO b.users VALUES (3), (4)"
    source = {"Node Type": "Values Scan", "Alias": "*VALUES*", "Output": ['"*VALUES*".column1', *["NULL::text"] * 3]}
    assert insert(sql, source).verified == [USERS]


def test_do_update_may_collide_again() -> None:
    source = result("$1", "$2", "NULL::integer", "NULL::text")
    sql = "INSERT INTO users VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET {}"
    plain = insert(sql.format("age = 5"), source, (INT, TEXT), Conflict_Resolution="UPDATE")
    assert plain.single_insert_only
    colliding = insert(sql.format("email = users.city"), source, (INT, TEXT), Conflict_Resolution="UPDATE")
    assert colliding.verified == [USERS]
    assert not colliding.single_insert_only
    moving = insert(sql.format("id = excluded.age"), source, (INT, TEXT), Conflict_Resolution="UPDATE")
    assert moving.losing == {1000}


def test_copy_asks_for_its_keys_and_whole_parents() -> None:
    plan = copy_plan(STATE, [STATE.tables[1010]], [STATE.tables[1010]])
    assert plan.verified == [STATE.tables[1010]]
    assert plan.whole == [STATE.tables[1000]]
    assert plan.key_shared == [STATE.tables[1000]]
    reading = copy_plan(STATE, [USERS], [])
    assert reading.whole == [USERS]
    assert not reading.written


# -- the text of statements ------------------------------------------------------------------------------------------


def test_targets() -> None:
    targets = read_targets(
        "WITH w AS (UPDATE a SET x = 1, (y, z) = (2, 3)), v AS (SELECT * FROM t AS s (p, q)) "
        "INSERT INTO b SELECT * FROM c AS d ON CONFLICT (k) DO UPDATE SET m = excluded.m"
    )
    assert targets.updated["a"].keys() == {"x", "y", "z"}
    assert targets.updated["a"]["y"] is None
    assert targets.upserted["b"].keys() == {"m"}
    assert not targets.inserted
    assert targets.is_renamed("s")
    assert targets.is_renamed("s_1")
    assert not targets.is_renamed("d")
    assert not Targets().is_renamed("s")
