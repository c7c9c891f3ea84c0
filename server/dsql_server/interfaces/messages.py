"""Messages between the query processor, adjudicators, journals, crossbar and storage nodes.

Every message is a plain, versioned value: a ``NamedTuple`` of ints, bytes, strings, tuples and other messages, so
that it can cross a process boundary unchanged (see :mod:`dsql_server.interfaces.wire`).

Keys are opaque bytes that sort in key order: a 4-byte big-endian relation id (a table or an index), then the
order-preserving encoding of the key columns (:mod:`dsql_server.encoding`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

MESSAGE_VERSION = 1

#: Nanoseconds since the Unix epoch. Strictly increasing where one role hands them out.
Timestamp = int


class LockMode(IntEnum):
    """How a transaction claims a key, weakest first (the conflict matrix of Aurora DSQL, by kind of write and lock).

    ``KEY_SHARE`` goes with ``KEY_SHARE`` and ``NO_KEY_UPDATE``; every other pair conflicts.
    """

    KEY_SHARE = 1  #: SELECT … FOR KEY SHARE and the referenced row of a foreign key
    NO_KEY_UPDATE = 2  #: UPDATE that leaves all key columns alone
    UPDATE = 3  #: INSERT, DELETE, UPDATE of key columns, SELECT … FOR UPDATE


class Claim(NamedTuple):
    """A key that a transaction wrote or locked."""

    key: bytes
    mode: int


class Mutation(NamedTuple):
    """A new version of a key: a row, an index entry or a catalog entry. ``value`` None deletes."""

    key: bytes
    value: bytes | None


class CommitRequest(NamedTuple):
    """What a query processor asks the adjudicators to commit, atomically."""

    transaction_id: bytes  #: 16 random bytes
    t_start: Timestamp
    catalog_version: int  #: the version the transaction ran on
    claims: tuple[Claim, ...]
    mutations: tuple[Mutation, ...]
    catalog_change: bytes | None = None  #: a DDL transaction's change; its version is catalog_version + 1


class ConflictKind(IntEnum):
    DATA = 0  #: another committed transaction claimed the key in (T_start, T_commit]: OC000
    SCHEMA = 1  #: the catalog version moved on: OC001


class Committed(NamedTuple):
    """The transaction is durable (two of three journal copies) and applied; whoever begins now sees it."""

    transaction_id: bytes
    t_commit: Timestamp


class Conflict(NamedTuple):
    transaction_id: bytes
    kind: int
    key: bytes


class Unavailable(NamedTuple):
    """Nothing was committed, and nothing will be: the client may retry the whole transaction."""

    transaction_id: bytes
    reason: str


class CommittedTransaction(NamedTuple):
    """A decided transaction, as journals, the crossbar and storage nodes carry it."""

    transaction_id: bytes
    t_commit: Timestamp
    t_start: Timestamp
    catalog_version: int
    claims: tuple[Claim, ...]
    mutations: tuple[Mutation, ...]
    catalog_change: bytes | None = None


CommitOutcome = Committed | Conflict | Unavailable
