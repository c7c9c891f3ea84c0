"""Pushed-down conditions, compiled once per request into a closure over stored rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from dsql_server.encoding import type_oids as oid
from dsql_server.encoding.keys import value_encoder
from dsql_server.encoding.orderings import ORDERINGS
from dsql_server.encoding.rows import field_reader, fields_reader
from dsql_server.interfaces.commit_path import Comparison

RowTest = Callable[[bytes], bool]
_FieldTest = Callable[["bytes | None"], bool]

PREDICATES_CACHED_MAX = 512

#: Types whose binary form is its own encoding: conditions compare the stored bytes directly.
_STORED_AS_ENCODED = frozenset({oid.UUID, oid.BOOL, oid.CHAR, oid.OID})
#: Types whose binary form sorts as its encoding does, once the operand's escapes and end mark are taken off.
_STORED_IN_ORDER = frozenset({oid.TEXT, oid.VARCHAR, oid.NAME, oid.BYTEA})


@lru_cache(maxsize=PREDICATES_CACHED_MAX)
def compile_predicate(predicate: tuple[Comparison, ...]) -> RowTest:
    """A function that says whether a stored row satisfies every comparison.

    Raises ValueError for an unknown operator and UnsupportedKeyType for a type without an encoding.
    """
    assert predicate, "an empty predicate needs no test"
    tests = [(comparison.column, _field_test(comparison)) for comparison in predicate]
    if len(tests) == 1:
        column, test_one = tests[0]
        read_one = field_reader(column)
        return lambda value: test_one(read_one(value))

    read = fields_reader(max(column for column, _ in tests))

    def test_all(value: bytes) -> bool:
        row = read(value)
        for column, test in tests:  # noqa: SIM110  (a generator costs more than the tests)
            if not test(row[column]):
                return False
        return True

    return test_all


def _field_test(comparison: Comparison) -> _FieldTest:
    name, type_oid, operands = comparison.operator, comparison.type_oid, comparison.operands
    if name == "isnull":
        return lambda field: field is None
    if name == "notnull":
        return lambda field: field is not None
    if type_oid in _STORED_AS_ENCODED:
        return _direct_test(name, operands)
    if type_oid in _STORED_IN_ORDER:
        return _direct_test(name, tuple(_without_escapes(operand) for operand in operands))
    return _encoded_test(name, value_encoder(type_oid), operands)


def _without_escapes(operand: bytes) -> bytes:
    assert operand.endswith(b"\0\0"), "a text operand must be an order-preserving encoding"
    return operand[:-2].replace(b"\0\xff", b"\0")


def _ordering(name: str, operands: tuple[bytes, ...]) -> tuple[Callable[[bytes, bytes], bool], bytes]:
    compare = ORDERINGS.get(name)
    if compare is None:
        raise ValueError(
            f"a pushed-down condition has the unknown operator {name!r}; known: {', '.join(ORDERINGS)}, in"
        )
    assert len(operands) == 1, f"operator {name} takes one operand, not {len(operands)}"
    return compare, operands[0]


def _direct_test(name: str, operands: tuple[bytes, ...]) -> _FieldTest:
    if name == "in":
        wanted = frozenset(operands)
        return lambda field: field in wanted
    compare, operand = _ordering(name, operands)
    if name == "=":
        return lambda field: field == operand
    return lambda field: field is not None and compare(field, operand)


def _encoded_test(name: str, encode: Callable[[bytes], bytes], operands: tuple[bytes, ...]) -> _FieldTest:
    if name == "in":
        wanted = frozenset(operands)
        return lambda field: field is not None and encode(field) in wanted
    compare, operand = _ordering(name, operands)
    return lambda field: field is not None and compare(encode(field), operand)
