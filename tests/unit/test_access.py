"""Access paths: the cheapest one is taken, and it always returns a superset of what the conditions ask for."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plan_scene import USERS, Stored, T, table

from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.rows import fields
from dsql_server.interfaces.commit_path import ScanRequest
from dsql_server.processor.access import POINTS_MAX, Access, Bound, choose_access
from dsql_server.processor.conditions import Conjunct, Constant, OtherColumn, Parameter

INT, TEXT = oids.INT4, oids.TEXT


@pytest.fixture
def stored() -> Stored:
    storage = Stored()
    storage.put(USERS, *((i, f"u{i}@x", 20 + i % 3, ("rome", "oslo")[i % 2]) for i in range(10)))
    storage.put(USERS, (10, None, None, None))
    return storage


def ids(access: Access, storage: Stored, *values: bytes | None, formats: int = 0) -> list[int]:
    rows = access.rows(Bound(values, (formats,) * len(values)), storage, T)
    return sorted(struct.unpack(">i", fields(value)[0] or b"")[0] for _, value in rows)


def access(*conjuncts: Conjunct, parameters: tuple[int, ...] = ()) -> Access:
    return choose_access(USERS, conjuncts, parameters, {})


def test_the_whole_primary_key_is_one_get(stored: Stored) -> None:
    path = access(Conjunct("id", "=", Parameter(1)), Conjunct("age", ">", Constant("0", INT)), parameters=(INT,))
    assert path.describe == "primary key"
    assert ids(path, stored, b"3") == [3]
    assert ids(path, stored, struct.pack(">i", 3), formats=1) == [3]
    assert ids(path, stored, b"77") == []
    assert ids(path, stored, None) == []
    assert not stored.scans


def test_an_index_with_equality_and_a_range(stored: Stored) -> None:
    path = access(Conjunct("city", "=", Constant("rome", TEXT)), Conjunct("age", ">=", Constant("21", INT)))
    assert path.describe == "index users_city_age"
    assert ids(path, stored) == [2, 4, 8]
    assert all(request.start[:4] == struct.pack(">I", 1003) for request in stored.scans)


@pytest.mark.parametrize(
    ("operator", "expected"), [("<", [0, 1]), ("<=", [0, 1, 2]), (">", [9, 10]), (">=", [8, 9, 10])]
)
def test_ranges_of_the_primary_key(stored: Stored, operator: str, expected: list[int]) -> None:
    bound = "2" if operator[0] == "<" else "8"
    assert ids(access(Conjunct("id", operator, Constant(bound, INT))), stored) == expected


def test_lists(stored: Stored) -> None:
    path = access(Conjunct("id", "in", Parameter(1)), parameters=(1007,))
    assert ids(path, stored, b"{1,5,NULL,5,99}") == [1, 5]
    assert ids(path, stored, None) == []
    assert not stored.scans
    assert ids(path, stored, b"{1,{2}}") == list(range(11))  # not understood: everything


def test_a_long_list_is_one_scan(stored: Stored) -> None:
    path = access(Conjunct("id", "in", Parameter(1)), parameters=(1007,))
    values = ",".join(str(i) for i in range(5, 6 + POINTS_MAX))
    assert ids(path, stored, f"{{{values}}}".encode()) == [5, 6, 7, 8, 9, 10]
    assert len(stored.scans) == 1


def test_conditions_without_an_index_run_in_storage(stored: Stored) -> None:
    path = access(Conjunct("age", "=", Constant("21", INT)), Conjunct("city", "notnull"))
    assert path.describe == "full scan"
    assert path.restricted
    assert ids(path, stored) == [1, 4, 7]
    assert ids(access(Conjunct("email", "isnull")), stored) == [10]


def test_a_comparison_with_null_finds_nothing(stored: Stored) -> None:
    assert ids(access(Conjunct("age", "=", Parameter(1)), parameters=(INT,)), stored, None) == []
    assert ids(access(Conjunct("id", "<", Parameter(1)), parameters=(INT,)), stored, None) == []


@pytest.mark.parametrize(
    ("oid", "value", "formats"),
    [(INT, b"five", 0), (INT, b"", 1), (oids.TIMESTAMPTZ, b"yesterday", 0), (oids.NUMERIC, b"\x00", 1)],
)
def test_what_is_not_understood_loads_everything(stored: Stored, oid: int, value: bytes, formats: int) -> None:
    column = "id" if oid == INT else "v"
    other = table(2000, "others", {"id": INT, "v": oid})
    path = choose_access(USERS if oid == INT else other, [Conjunct(column, "=", Parameter(1))], (oid,), {})
    if oid == INT:
        assert len(ids(path, stored, value, formats=formats)) == 11
    else:
        stored.put(other, (1, None))
        assert len(path.rows(Bound((value,), (formats,)), stored, T)) == 1


@pytest.mark.parametrize(
    "conjunct",
    [
        Conjunct("id", "=", Constant("1.0", oids.NUMERIC)),  # compares as numeric
        Conjunct("age", "=", Constant("1", TEXT)),
        Conjunct("age", "=", Constant("x", TEXT), as_text=True),
        Conjunct("gone", "=", Constant("1", INT)),
        Conjunct("id", "=", Parameter(2)),  # no such parameter
    ],
)
def test_operands_of_other_types_do_not_narrow(stored: Stored, conjunct: Conjunct) -> None:
    path = access(conjunct, parameters=(INT,))
    assert not path.restricted
    assert len(ids(path, stored, b"1")) == 11


def test_types_without_an_encoding_do_not_narrow() -> None:
    documents = table(2000, "documents", {"id": INT, "body": 3802})
    path = choose_access(documents, [Conjunct("body", "=", Parameter(1))], (3802,), {})
    assert not path.restricted
    joined = choose_access(documents, [Conjunct("body", "=", OtherColumn("d", "body"))], (), {"d": documents})
    assert not joined.restricted


def test_a_join_looks_up_the_values_that_were_found(stored: Stored) -> None:
    path = choose_access(USERS, [Conjunct("id", "=", OtherColumn("f", "age"))], (), {"f": USERS})
    bound = Bound((), ())
    storage = Stored()
    storage.put(USERS, (1, "a", 4, None), (2, "b", None, None), (3, "c", 77, None))
    bound.found["f"] = list(storage.scan(_everything()).rows)
    assert [fields(v)[1] for _, v in path.rows(bound, stored, T)] == [b"u4@x"]


def test_a_join_with_rows_of_the_transaction_loads_everything(stored: Stored) -> None:
    path = choose_access(USERS, [Conjunct("id", "=", OtherColumn("f", "age"))], (), {"f": USERS})
    assert len(path.rows(Bound((), (), found={"f": []}, dirty={1000}), stored, T)) == 11
    assert len(path.rows(Bound((), ()), stored, T)) == 11  # nothing known of the other scan
    assert path.rows(Bound((), (), found={"f": []}), stored, T) == []


def test_casts_of_parameters(stored: Stored) -> None:
    prices = table(2000, "prices", {"id": oids.NUMERIC, "name": oids.VARCHAR})
    path = choose_access(prices, [Conjunct("id", "=", Parameter(1, oids.NUMERIC))], (INT,), {})
    assert path.describe == "primary key"
    path.rows(Bound((b"5",), (0,)), stored, T)
    assert stored.gets == 1
    rounded = choose_access(
        prices, [Conjunct("id", "=", Parameter(1, oids.NUMERIC, (9 << 16 | 1) + 4))], (oids.NUMERIC,), {}
    )
    rounded.rows(Bound((b"5.5",), (0,)), stored, T)
    assert (stored.gets, len(stored.scans)) == (2, 0)
    rounded.rows(Bound((b"5.55",), (0,)), stored, T)
    assert (stored.gets, len(stored.scans)) == (2, 1)
    trimmed = choose_access(prices, [Conjunct("name", "=", Parameter(1, oids.VARCHAR, 7))], (oids.VARCHAR,), {})
    trimmed.rows(Bound((b"x",), (0,)), stored, T)
    assert len(stored.scans[-1].predicate) == 1
    trimmed.rows(Bound((b"x ",), (0,)), stored, T)
    assert not stored.scans[-1].predicate


def _everything() -> ScanRequest:
    return ScanRequest(struct.pack(">I", 1000), struct.pack(">I", 1001), T)


_columns = st.sampled_from(["id", "age"])
_conjuncts = st.builds(
    Conjunct,
    _columns,
    st.sampled_from(["=", "<", "<=", ">", ">="]),
    st.builds(Constant, st.integers(-1, 12).map(str), st.just(INT)),
)
_tests = {
    "=": lambda a, b: a == b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@given(
    rows=st.dictionaries(st.integers(-1, 12), st.none() | st.integers(-1, 12), max_size=12),
    conjuncts=st.lists(_conjuncts, max_size=4),
)
def test_no_wanted_row_is_left_out(rows: dict[int, int | None], conjuncts: list[Conjunct]) -> None:
    storage = Stored()
    storage.put(USERS, *((number, None, age, "x") for number, age in rows.items()))

    def wanted(number: int, age: int | None) -> bool:
        values = {"id": number, "age": age}
        return all(
            values[c.column] is not None and _tests[c.operator](values[c.column], int(c.operand.text))  # type: ignore[union-attr]
            for c in conjuncts
        )

    found = ids(choose_access(USERS, conjuncts, (), {}), storage)
    assert {number for number, age in rows.items() if wanted(number, age)} <= set(found)


def test_a_row_that_a_stale_entry_finds_again_is_there_once(stored: Stored) -> None:
    """A build of an index beside an update may leave an entry of the row's old value."""
    key = next(k for k, v in stored.rows.items() if k[:4] == struct.pack(">I", 1000) and b"u0@x" in v)
    stale = next(e for _, e in USERS.plain_indexes if e is not None).from_row(stored.rows[key])
    stored.rows[stale.replace(b"u0@x", b"u1@x") + key[4:]] = key
    around = (Conjunct("email", ">=", Constant("u0", TEXT)), Conjunct("email", "<", Constant("u2", TEXT)))
    assert ids(access(*around), stored) == [0, 1]
    listed = access(Conjunct("email", "in", Constant("{u0@x,u1@x}", TEXT)))
    assert ids(listed, stored) == [0, 1]
