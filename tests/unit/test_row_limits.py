"""Sizes of rows, columns and keys, on rows as storage keeps them."""

from __future__ import annotations

import random

import pytest

from dsql_server.catalog.state import Column, Index, Table
from dsql_server.encoding import type_oids as t
from dsql_server.encoding.rows import join
from dsql_server.interfaces.limits import DSQL_LIMITS, MIB
from dsql_server.processor.access import Bound
from dsql_server.processor.errors import LimitExceeded
from dsql_server.processor.row_limits import check_row, may_exceed
from dsql_server.statements import classify

JSONB = 3802
#: Nothing that could be compressed.
NOISE = random.Random(1).randbytes(MIB + MIB // 10)
KEY = Index(2, "public", "t_pkey", True, True, True, (1,), (t.TEXT,), (False,))
OTHER_KEY = Index(3, "public", "t_i", False, False, True, (2, 0), (t.TEXT, t.TEXT), (False, False), ("lower(c)",))
TABLE = Table(
    1,
    "public",
    "t",
    (
        Column(1, "k", t.TEXT, modifier=-1),
        Column(2, "v", t.TEXT, modifier=-1),
        Column(3, "j", JSONB, modifier=-1),
        Column(4, "c", t.VARCHAR, modifier=-1),
        Column(5, "n", t.VARCHAR, modifier=24),
        Column(6, "gone", t.TEXT, modifier=-1, dropped=True),
    ),
    KEY,
    (OTHER_KEY,),
)


def row(
    k: bytes = b"k", v: bytes | None = None, j: bytes | None = None, c: bytes | None = None, gone: bytes | None = None
) -> bytes:
    return join([k, v, j, c, b"n", gone])


@pytest.mark.parametrize(
    "image",
    [
        row(),
        row(k=b"k" * 1981),
        row(v=None, j=b"\x01" + b"j" * MIB),
        row(c=b"c" * 65535, j=b"\x01" + b"j" * MIB),
        row(gone=b"x" * (MIB + 1)),
        row(j=b"\x01" + b"j" * (3 * MIB)),
    ],
    ids=["small", "longest key", "longest jsonb", "longest varchar", "a dropped column", "a jsonb that is compressed"],
)
def test_what_fits(image: bytes) -> None:
    check_row(TABLE, image, DSQL_LIMITS)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (row(k=b"k" * 1982), "key size too large"),
        (row(v=b"v" * 1982), "key size too large"),
        (row(v=b"v" * (MIB + 1)), "datatype limit greater than 1048576 bytes not supported for text"),
        (row(j=b"\x01" + NOISE), "datatype limit greater than 1048576 bytes not supported for jsonb"),
        (row(c=b"c" * 65536), "datatype limit greater than 65535 bytes not supported for varchar"),
        (row(v=b"v" * MIB, j=b"\x01" + NOISE[:MIB]), "maximum row size exceeded"),
    ],
    ids=["key", "key of an index", "text", "jsonb", "varchar", "row"],
)
def test_what_does_not(image: bytes, message: str) -> None:
    with pytest.raises(LimitExceeded) as exceeded:
        check_row(TABLE, image, DSQL_LIMITS)
    assert (exceeded.value.message, exceeded.value.sqlstate) == (message, "54000")


@pytest.mark.parametrize(
    ("sql", "values", "expected"),
    [
        ("INSERT INTO t VALUES ('k', 'v')", (), False),
        ("INSERT INTO t VALUES ($1, $2)", (b"k", None), False),
        ("INSERT INTO t VALUES ($1, $2)", (b"k" * 1982, None), True),
        (f"INSERT INTO t VALUES ('{'k' * 1982}')", (), True),
        ("UPDATE t SET v = repeat(v, 9)", (), True),
        ("UPDATE t SET v = v || v", (), True),
        ("UPDATE t SET v = upper(v)", (), False),
        ("UPDATE t SET n = n + 1", (), False),
    ],
)
def test_only_statements_that_were_given_or_make_much_are_looked_at(
    sql: str, values: tuple[bytes | None, ...], expected: bool
) -> None:
    (statement,) = classify(sql)
    assert may_exceed(statement, Bound(values, (0,) * len(values)), DSQL_LIMITS) is expected
