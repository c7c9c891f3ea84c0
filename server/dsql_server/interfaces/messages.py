"""Messages between the query processor, adjudicators, journals, crossbar and storage nodes.

Every message is a plain, versioned value: a ``NamedTuple`` of ints, bytes, strings, tuples and other messages, so
that it can cross a process boundary unchanged (see :mod:`dsql_server.interfaces.wire`).

Keys are opaque bytes that sort in key order: a 4-byte big-endian relation id (a table or an index), then the
order-preserving encoding of the key columns (:mod:`dsql_server.encoding`).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from dsql_server.interfaces.limits import TRANSACTION_AGE_MAX_S as TRANSACTION_AGE_MAX_S

MESSAGE_VERSION = 1

#: As ``catalog_version`` of a request: it doesn't depend on the catalog (leases of sequence values).
CATALOG_ANY = -1

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


class Unknown(NamedTuple):
    """The journal didn't say whether it has the transaction: it may show up as committed, as a whole, or never."""

    transaction_id: bytes
    reason: str


CommitOutcome = Committed | Conflict | Unavailable | Unknown


# Between adjudicators: a transaction whose claims several of them own.


class Hold(NamedTuple):
    """The final adjudicator asks an owner of some of the claims to vote, and to keep them free until it decides."""

    transaction_id: bytes
    t_start: Timestamp
    catalog_version: int
    claims: tuple[Claim, ...]  #: those that the receiver owns
    changes_catalog: bool


class Vote(NamedTuple):
    """Nothing that the voter committed conflicts, and nothing will with a decision in (not_before, not_after].

    A refusing voter answers with :class:`Conflict` or :class:`Unavailable` instead.
    """

    transaction_id: bytes
    not_before: Timestamp
    not_after: Timestamp


class Release(NamedTuple):
    """The final adjudicator's decision; ``t_commit`` is 0 when the transaction was dropped."""

    transaction_id: bytes
    t_commit: Timestamp


class Inquire(NamedTuple):
    """What became of the transaction? If its final adjudicator hasn't seen it yet, it never will commit.

    A voter is answered with :class:`Release`, a query processor with an outcome; neither before the decision stands.
    """

    transaction_id: bytes


# Promises, from adjudicators to whoever merges their journals.


class PromiseRequest(NamedTuple):
    """Asks an adjudicator never to commit at or below ``at_least`` from now on."""

    at_least: Timestamp


class Watermark(NamedTuple):
    """Nothing at or below ``t`` follows in the journal behind its record ``sequence``."""

    journal: str
    sequence: int
    t: Timestamp


class CatalogRequest(NamedTuple):
    """Asks the crossbar for the catalog's version, once everything up to ``t`` is merged."""

    t: Timestamp


class CatalogAt(NamedTuple):
    t: Timestamp
    catalog_version: int


# Journals.


class Append(NamedTuple):
    """Appends one record (none but a barrier if empty) if ``expected_sequence`` is next and the epoch is current."""

    epoch: int
    expected_sequence: int
    transactions: tuple[CommittedTransaction, ...]


class Appended(NamedTuple):
    """The record is on two of three copies."""

    epoch: int
    sequence: int


class AppendRefused(NamedTuple):
    """Compare-and-set failed: another owner fenced the sender, or the sender lost count."""

    epoch: int  #: the journal's
    expected_sequence: int  #: the journal's


class JournalFailed(NamedTuple):
    """Fewer than two copies can be written: whether records in flight are decided is known after recovery only."""

    reason: str


class SetLeader(NamedTuple):
    """Fences every owner with a smaller epoch."""

    epoch: int


class LeaderSet(NamedTuple):
    epoch: int
    next_sequence: int
    t_last: Timestamp  #: of the last transaction in the journal, 0 if there is none


class LookUp(NamedTuple):
    """Is the transaction in the journal? Only an answer behind a barrier of one's own is final."""

    transaction_id: bytes


class LookedUp(NamedTuple):
    transaction_id: bytes
    sequence: int  #: of the record it is in, 0 if it is in none
    t_commit: Timestamp


class Subscribe(NamedTuple):
    """Asks for every record from ``sequence`` on, as :class:`Stream` messages, once each is durable."""

    sequence: int


class Stream(NamedTuple):
    """One durable record."""

    journal: str
    sequence: int
    transactions: tuple[CommittedTransaction, ...]


# Storage nodes.


class Delivery(NamedTuple):
    """The next part of a storage node's stream, in T_commit order, over all journals."""

    number: int  #: counts from 1, for each subscriber
    batch: tuple[tuple[Timestamp, tuple[Mutation, ...]], ...]
    positions: tuple[tuple[str, int], ...]  #: journal and sequence up to which everything is delivered; most have none
    watermark: Timestamp  #: nothing at or below it follows


class Resend(NamedTuple):
    """A storage node misses deliveries from ``number`` on."""

    number: int


class Get(NamedTuple):
    """Reads one key as of ``t``; answered as soon as everything up to ``t`` is applied."""

    request_number: int
    key: bytes
    t: Timestamp


class Got(NamedTuple):
    request_number: int
    value: bytes | None
