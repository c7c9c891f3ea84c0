"""What conditions compare with, as order-preserving encodings: constants, parameters, columns of joined rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from dsql_server.catalog.state import Table
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.arrays import array_elements, array_elements_from_text
from dsql_server.encoding.keys import KEY_TYPE_OIDS, encode_value, value_encoder
from dsql_server.encoding.parameters import NotUnderstood, binary_from_text, convert
from dsql_server.encoding.rows import field_count, field_reader
from dsql_server.processor.conditions import MODIFIER_OFFSET, Constant, Parameter

if TYPE_CHECKING:
    from dsql_server.processor.access import Bound

NO_MODIFIER = -1
_SCALE_BITS, _SCALE_NEGATIVE = 0x7FF, 0x400

#: Encoded operand (None: SQL NULL), or a list of them for ``in``.
Getter = Callable[["Bound"], "bytes | None"]
ListGetter = Callable[["Bound"], list[bytes]]


def scalar_getter(operand: Constant | Parameter, parameter_oids: Sequence[int]) -> tuple[int, Getter] | None:
    """The operand's type and its reader, or None where its value can't be known exactly."""
    if isinstance(operand, Constant):
        try:
            encoded = encode_value(operand.type_oid, binary_from_text(operand.type_oid, operand.text))
        except ValueError:
            return None
        return operand.type_oid, lambda bound: encoded
    if operand.number > len(parameter_oids):
        return None
    at, oid = operand.number - 1, parameter_oids[operand.number - 1]
    target = oid if operand.cast_oid is None else operand.cast_oid
    if target not in KEY_TYPE_OIDS:
        return None
    encode = value_encoder(target)
    is_cast, modifier = oid != target, operand.modifier

    def read(bound: Bound) -> bytes | None:
        value = bound.values[at]
        if value is None:
            return None
        if bound.formats[at] == 0:
            value = binary_from_text(oid, value, bound.zone_is_utc)
        if is_cast:
            value = convert(oid, target, value, bound.zone_is_utc)
        if modifier != NO_MODIFIER:
            check_unchanged(target, modifier, value)
        return encode(value)

    return target, read


def check_unchanged(type_oid: int, modifier: int, value: bytes) -> None:
    """Raises NotUnderstood unless a cast to the type with this modifier leaves the value as it is, or refuses it."""
    if type_oid == oids.NUMERIC:
        scale = (modifier - MODIFIER_OFFSET) & _SCALE_BITS
        is_same = int.from_bytes(value[6:8], "big") <= scale < _SCALE_NEGATIVE
    elif type_oid == oids.VARCHAR:
        is_same = len(value.decode()) <= modifier - MODIFIER_OFFSET and not value.endswith(b" ")
    elif type_oid == oids.BPCHAR:
        is_same = len(value.decode().rstrip(" ")) <= modifier - MODIFIER_OFFSET
    else:
        is_same = False
    if not is_same:
        raise NotUnderstood("the value may be cut or rounded")


_ARRAY_ELEMENTS = {
    1000: oids.BOOL, 1001: oids.BYTEA, 1005: oids.INT2, 1007: oids.INT4, 1009: oids.TEXT, 1014: oids.BPCHAR,
    1015: oids.VARCHAR, 1016: oids.INT8, 1021: oids.FLOAT4, 1022: oids.FLOAT8, 1115: oids.TIMESTAMP,
    1182: oids.DATE, 1185: oids.TIMESTAMPTZ, 1231: oids.NUMERIC, 2951: oids.UUID,
}  # fmt: skip


def list_getter(operand: Constant | Parameter, parameter_oids: Sequence[int]) -> tuple[int, ListGetter] | None:
    if isinstance(operand, Constant):
        oid = operand.type_oid
        try:
            encoded = [encode_value(oid, v) for v in array_elements_from_text(oid, operand.text) if v is not None]
        except ValueError:
            return None
        return oid, lambda bound: encoded
    if operand.number > len(parameter_oids) or operand.cast_oid is not None:
        return None
    at = operand.number - 1
    element = _ARRAY_ELEMENTS.get(parameter_oids[at])
    if element is None:
        return None

    def read(bound: Bound) -> list[bytes]:
        value = bound.values[at]
        if value is None:
            return []
        if bound.formats[at] == 0:
            elements = array_elements_from_text(element, value, bound.zone_is_utc)
        else:
            actual, elements = array_elements(value)
            if actual != element and elements:
                raise NotUnderstood("the array's elements are of another type")
        return [encode_value(element, e) for e in elements if e is not None]

    return element, read


def join_getter(source: Table, alias: str, column: str) -> tuple[int, ListGetter] | None:
    other = source.by_name.get(column)
    if other is None or other.type_oid not in KEY_TYPE_OIDS:
        return None
    position, oid = other.number - 1, other.type_oid
    read_field = field_reader(position)

    def read(bound: Bound) -> list[bytes]:
        if source.relation_id in bound.dirty or alias not in bound.found:
            raise NotUnderstood("the joined rows aren't all known to storage")
        values = set()
        for _, row in bound.found[alias]:
            if field_count(row) > position:
                value = read_field(row)
                if value is not None:
                    values.add(encode_value(oid, value))
        return list(values)

    return oid, read
