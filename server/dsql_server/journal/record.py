"""The bytes of a journal record: CRC, hash chain, epoch, sequence and the transactions of one group commit.

    magic 4 | crc32 4 | length 4 | transactions 4 | epoch 8 | sequence 8 | digest of the record before 16 | transactions

The CRC covers everything behind it, ``length`` the whole record. The digest of a record covers all of its bytes and so,
through the digest inside, every record before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from struct import Struct, pack, unpack_from
from typing import NamedTuple
from zlib import crc32

from dsql_server import compiled
from dsql_server.interfaces.messages import Claim, CommittedTransaction, Mutation, Timestamp

MAGIC = b"DSJ1"
DIGEST_BYTES = 16
#: What the first record of a journal names as the digest before it.
NO_DIGEST = bytes(DIGEST_BYTES)

_HEADER = Struct("<4sIIIQQ16s")
HEADER_BYTES = _HEADER.size
_CRC_END = 8
#: transaction id, T_commit, T_start, catalog version, claims, mutations, length of the catalog change or -1
_TRANSACTION = Struct("<16sqqqIIi")
_LENGTH = Struct("<I")
_ABSENT = -1


class JournalTail(NamedTuple):
    """What must be known of a journal's records to go on behind them."""

    epoch: int = 0
    sequence: int = 0  #: of the last record
    digest: bytes = NO_DIGEST  #: of the last record
    t_last: Timestamp = 0  #: T_commit of the last transaction
    t_last_sequence: int = 0  #: of the record it is in


class Record(NamedTuple):
    """A record that has been read and verified."""

    epoch: int
    sequence: int
    transactions: tuple[CommittedTransaction, ...]
    digest: bytes
    length: int  #: bytes, without padding


def _encode_transaction(transaction: CommittedTransaction) -> bytes:
    """What its parts come to, all lengths and lock modes, then all keys and values."""
    transaction_id, t_commit, t_start, catalog_version, claims, mutations, catalog_change = transaction
    head = _TRANSACTION.pack(
        transaction_id,
        t_commit,
        t_start,
        catalog_version,
        len(claims),
        len(mutations),
        _ABSENT if catalog_change is None else len(catalog_change),
    )
    lengths: list[int] = []
    parts = [head, b""]
    for key, mode in claims:
        lengths += (len(key), mode)
        parts.append(key)
    for key, value in mutations:
        lengths += (len(key), _ABSENT if value is None else len(value))
        parts += (key, value or b"")
    parts[1] = pack(f"<{len(lengths)}i", *lengths)
    parts.append(catalog_change or b"")
    return b"".join(parts)


def decode_transaction(data: bytes, at: int = 0) -> CommittedTransaction:
    """The transaction whose encoding starts at ``at``."""
    transaction_id, t_commit, t_start, catalog_version, n_claims, n_mutations, n_change = _TRANSACTION.unpack_from(
        data, at
    )
    at += _TRANSACTION.size
    lengths = unpack_from(f"<{2 * (n_claims + n_mutations)}i", data, at)
    at += 4 * len(lengths)
    claims = []
    for i in range(0, 2 * n_claims, 2):
        end = at + lengths[i]
        claims.append(Claim(data[at:end], lengths[i + 1]))
        at = end
    mutations = []
    for i in range(2 * n_claims, len(lengths), 2):
        end = at + lengths[i]
        key = data[at:end]
        at = end
        if lengths[i + 1] == _ABSENT:
            mutations.append(Mutation(key, None))
        else:
            end = at + lengths[i + 1]
            mutations.append(Mutation(key, data[at:end]))
            at = end
    change = None if n_change == _ABSENT else data[at : at + n_change]
    return CommittedTransaction(
        transaction_id, t_commit, t_start, catalog_version, tuple(claims), tuple(mutations), change
    )


def _encode_record(
    epoch: int, sequence: int, previous_digest: bytes, transactions: Sequence[CommittedTransaction]
) -> tuple[bytes, bytes]:
    """(the record, its digest)."""
    parts = [b""]
    length = HEADER_BYTES
    for transaction in transactions:
        data = _encode_transaction(transaction)
        parts.append(_LENGTH.pack(len(data)))
        parts.append(data)
        length += len(data) + 4
    parts[0] = _HEADER.pack(MAGIC, 0, length, len(transactions), epoch, sequence, previous_digest)[_CRC_END:]
    covered = b"".join(parts)
    record = b"".join((MAGIC, _LENGTH.pack(crc32(covered)), covered))
    return record, digest_of(record)


encode_record = _encode_record if compiled.journal is None else compiled.journal.encode_record


def digest_of(record: bytes) -> bytes:
    return blake2b(record, digest_size=DIGEST_BYTES).digest()


def previous_digest_of(record: bytes) -> bytes:
    return record[HEADER_BYTES - DIGEST_BYTES : HEADER_BYTES]


def decode_record(data: bytes, at: int, sequence: int, previous_digest: bytes) -> Record | None:
    """The record ``sequence`` at ``at``, or None if there is none that is whole and continues the chain."""
    if at + HEADER_BYTES > len(data):
        return None
    magic, crc, length, n_transactions, epoch, found, previous = _HEADER.unpack_from(data, at)
    if magic != MAGIC or found != sequence or previous != previous_digest:
        return None
    end = at + length
    if length < HEADER_BYTES or end > len(data):
        return None
    whole = data[at:end]
    if crc32(memoryview(whole)[_CRC_END:]) != crc:
        return None
    transactions = []
    position = HEADER_BYTES
    for _ in range(n_transactions):
        (size,) = _LENGTH.unpack_from(whole, position)
        transactions.append(decode_transaction(whole, position + 4))
        position += 4 + size
    assert position == length, f"record {sequence} has {length - position} bytes behind its last transaction"
    return Record(epoch, sequence, tuple(transactions), digest_of(whole), length)


def decode_own_record(data: bytes) -> Record:
    """A record that has been verified before: trusts the place in the chain that its header names.

    Raises :class:`ValueError` if it has been damaged since.
    """
    _, _, _, _, _, sequence, previous_digest = _HEADER.unpack_from(data)
    record = decode_record(data, 0, sequence, previous_digest)
    if record is None:
        raise ValueError(f"record {sequence} of a journal has been damaged since it was verified")
    return record


def is_whole_record_behind(data: bytes, at: int, sequence: int) -> bool:
    """Whether a whole record with a number above ``sequence`` lies at ``at``, in the chain or not."""
    if at + HEADER_BYTES > len(data):
        return False
    _, crc, length, _, _, found, _ = _HEADER.unpack_from(data, at)
    if found <= sequence or not HEADER_BYTES <= length <= len(data) - at:
        return False
    return crc32(memoryview(data)[at + _CRC_END : at + length]) == int(crc)
