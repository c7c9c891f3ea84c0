"""Direct reads in the words of the extension module that answers them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from dsql_server import compiled
from dsql_server.encoding import keys, output
from dsql_server.encoding.keys import value_encoder
from dsql_server.interfaces.commit_path import ScanRequest
from dsql_server.processor.access import Bound, PointGet, RangeGet
from dsql_server.processor.conditions import Constant, Parameter
from dsql_server.processor.operands import NO_MODIFIER

if TYPE_CHECKING:
    from dsql_server.processor.direct_answer import Column, Layout
    from dsql_server.processor.direct_read import DirectRead
    from dsql_server.processor.plan import Scan

#: As in compiled/_reads.pyx, its Path, Source and Operator.
_POINT, _INTERVAL, _LOOK_UP = range(3)
_NOTHING, _CONSTANT, _PARAMETER, _CALL = range(4)
_OPERATORS = {"isnull": 0, "notnull": 1, "=": 2, "<>": 3, "<": 4, "<=": 5, ">": 6, ">=": 7}

_NO_PARAMETERS = Bound((), ())


def compiled_read(
    read: DirectRead,
    layout: Layout,
    checked: Sequence[Sequence[int]],
    plain: Sequence[int],
    rows_max: int,
    exact: Callable[[int, bytes, int], bytes],
    call: Callable[[Any, Sequence[bytes | None]], bytes | None],
) -> Any:
    """What :attr:`dsql_server.processor.direct_answer.DirectAnswer.messages` is where it can be compiled, or None.

    ``checked`` are, for each scan, the conditions that are to be asked of the rows that are found. For the rest see
    ``Read`` in the extension module.
    """
    scans = read.scans
    if compiled.reads is None:
        return None
    if max(sum(len(scan.conjuncts) for scan in scans), len(plain)) > compiled.reads.OPERANDS_MAX:
        return None
    found = []
    for scan, numbers, segments, sorted_by in zip(scans, checked, layout.segments, layout.sorted_by, strict=True):
        known = _scan(scan, read.parameter_oids, numbers, segments, sorted_by)
        if known is None:
            return None
        found.append(known)
    return compiled.reads.Read(
        found, len(read.columns), layout.places, layout.sorts, plain, rows_max, exact, call, ScanRequest
    )


def _scan(
    scan: Scan,
    parameter_oids: Sequence[int],
    checked: Sequence[int],
    segments: Sequence[Sequence[tuple[int, output.Output]]],
    sorts: Sequence[Column],
) -> Any:
    access = scan.access
    conditions = access.conditions.pushed
    if any(operator not in _OPERATORS for _, _, operator, _ in conditions):
        return None
    if isinstance(access, PointGet):
        path = _POINT
        start, key, ranges = access.start, access.places, list[tuple[int, str]]()
    elif isinstance(access, RangeGet) and access.is_interval:
        path = _INTERVAL if access.index.primary else _LOOK_UP
        start, key, ranges = access.key_conditions
    else:
        return None
    return compiled.reads.Scan(
        path,
        start,
        [
            _operand(conjunct.operand, condition[3], parameter_oids)
            for conjunct, condition in zip(scan.conjuncts, conditions, strict=True)
        ],
        key,
        [(place, _OPERATORS[operator]) for place, operator in ranges],
        [_check(conditions[at][0], conditions[at][1], conditions[at][2], at) for at in checked],
        [[(position, output.compiled_kind(write), write) for position, write in segment] for segment in segments],
        [(column.position, *_encoding(column.type_oid)) for column in sorts],
    )


def _operand(operand: object, getter: Any, parameter_oids: Sequence[int]) -> tuple[int, int, int, object]:
    """Source, number of the parameter, kind, detail."""
    if getter is None:
        return _NOTHING, 0, 0, None
    if isinstance(operand, Constant):
        return _CONSTANT, 0, 0, getter(_NO_PARAMETERS)
    if isinstance(operand, Parameter) and operand.modifier == NO_MODIFIER:
        at = operand.number - 1
        if operand.cast_oid in (None, parameter_oids[at]):
            return _PARAMETER, at, *_encoding(parameter_oids[at])
    return _CALL, 0, 0, getter


def _check(position: int, type_oid: int, operator: str, at: int) -> tuple[int, int, keys.ValueEncoder, int, int]:
    return position, *_encoding(type_oid), _OPERATORS[operator], at


def _encoding(type_oid: int) -> tuple[int, keys.ValueEncoder]:
    encode = value_encoder(type_oid)
    return keys.compiled_kind(encode), encode
