"""How large rows, their columns and their keys may be, checked on the rows that a statement wrote."""

from __future__ import annotations

import zlib

from dsql_server.catalog.state import Table
from dsql_server.encoding import type_oids as t
from dsql_server.encoding.rows import fields
from dsql_server.interfaces.limits import Limits
from dsql_server.processor.access import Bound
from dsql_server.processor.errors import LimitExceeded
from dsql_server.statements import Statement

#: Bytes of a varchar and of a char without a length.
VARCHAR_SIZE_MAX_BYTES = 65535
CHAR_SIZE_MAX_BYTES = 4096

_JSON, _JSONB = 114, 3802
#: Types of any length, as messages name them.
_LONG_TYPES = {t.TEXT: "text", t.BYTEA: "bytea", _JSON: "json", _JSONB: "jsonb"}
_SHORT_TYPES = {t.VARCHAR: ("varchar", VARCHAR_SIZE_MAX_BYTES), t.BPCHAR: ("char", CHAR_SIZE_MAX_BYTES)}
#: Types whose values are compressed before they are measured.
_COMPRESSED = frozenset({_JSON, _JSONB})
_FASTEST = 1  #: compression level
#: PostgreSQL's jsonb has a version number in front when it is sent.
_JSONB_HEADER_BYTES = 1
#: What a value's length takes in a row.
_FIELD_HEADER_BYTES = 4
_ROW_HEADER_BYTES = 2

#: Functions that make long values out of short ones.
_GROWING_NAMES = """
    repeat lpad rpad concat concat_ws format replace regexp_replace translate overlay string_agg array_to_string
    encode decode convert_to json_agg jsonb_agg json_object_agg jsonb_object_agg to_json to_jsonb row_to_json
    json_build_object jsonb_build_object json_build_array jsonb_build_array array_to_json jsonb_pretty quote_literal
"""
_GROWING = frozenset(_GROWING_NAMES.split())
#: Operators that do.
_GROWING_OPERATORS = frozenset({"||"})


def may_exceed(statement: Statement, bound: Bound, limits: Limits) -> bool:
    """Whether a statement may have written a row that breaks a limit: it was given much, or makes much of little."""
    if not (_GROWING.isdisjoint(statement.functions) and _GROWING_OPERATORS.isdisjoint(statement.operators)):
        return True
    given = len(statement.text) + sum(len(value) for value in bound.values if value is not None)
    return given > limits.small_row_bytes


def check_row(table: Table, image: bytes, limits: Limits) -> None:
    """Raises LimitExceeded if a row, a column or a key of it is too large. ``image`` is a stored row."""
    row = fields(image)
    row_size = len(image) - _ROW_HEADER_BYTES - _FIELD_HEADER_BYTES * len(row)
    for column, value in zip(table.columns, row, strict=False):
        if value is None or column.dropped:
            continue
        if column.type_oid in _LONG_TYPES:
            size = len(value) - (_JSONB_HEADER_BYTES if column.type_oid == _JSONB else 0)
            if column.type_oid in _COMPRESSED and (size > limits.column_size_bytes or row_size > limits.row_size_bytes):
                packed = min(size, compressed_size(value))
                row_size -= size - packed
                size = packed
            _check_value(size, limits.column_size_bytes, _LONG_TYPES[column.type_oid])
        elif column.type_oid in _SHORT_TYPES and column.modifier < 0:
            shown, limit = _SHORT_TYPES[column.type_oid]
            _check_value(len(value), limit, shown)
    if row_size > limits.row_size_bytes:
        raise LimitExceeded("maximum row size exceeded")
    for index in (table.primary_key, *table.indexes):
        if index is not None:
            values = [row[number - 1] for number in index.columns if number]
            if sum(len(value) for value in values if value is not None) > limits.key_size_bytes:
                raise LimitExceeded("key size too large")


def compressed_size(value: bytes) -> int:
    """About as many bytes as a compressor leaves that looks for repetitions only, as databases' do."""
    packer = zlib.compressobj(_FASTEST, strategy=zlib.Z_FIXED)
    return len(packer.compress(value)) + len(packer.flush())


def _check_value(size: int, limit: int, shown: str) -> None:
    if size > limit:
        raise LimitExceeded(f"datatype limit greater than {limit} bytes not supported for {shown}")
