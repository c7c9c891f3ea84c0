"""Checks a finished run against the model: what the journals hold, and what every client saw.

Each violation is a sentence; none means that the run was snapshot isolation with first committer wins, in real-time
order, and that nothing acknowledged is lost.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

from dsql_server.interfaces.messages import CATALOG_ANY, Committed, CommittedTransaction, LockMode, Timestamp
from dsql_server.simulation.client import Attempt


def violations(
    journals: Mapping[str, Sequence[CommittedTransaction]],
    attempts: Sequence[Attempt],
    stored: Mapping[bytes, tuple[list[Timestamp], list[bytes | None]]],
) -> list[str]:
    """``stored``: all versions of all keys as storage has them at the end."""
    committed = sorted((t for transactions in journals.values() for t in transactions), key=lambda t: t.t_commit)
    return [
        *_journals_in_order(journals),
        *_one_journal_each(committed),
        *_outcomes(committed, attempts),
        *_first_committer_wins(committed),
        *_catalog_versions(committed),
        *_snapshots(committed, attempts),
        *_real_time_order(attempts),
        *_stored(committed, stored),
    ]


def _name(transaction_id: bytes) -> str:
    return transaction_id.hex()[:8]


def _journals_in_order(journals: Mapping[str, Sequence[CommittedTransaction]]) -> Iterable[str]:
    for name, transactions in journals.items():
        last = 0
        for transaction in transactions:
            if transaction.t_commit <= last:
                yield f"{name}: {_name(transaction.transaction_id)} is not behind the transaction before it"
            last = transaction.t_commit


def _one_journal_each(committed: Sequence[CommittedTransaction]) -> Iterable[str]:
    seen: set[bytes] = set()
    for transaction in committed:
        if transaction.transaction_id in seen:
            yield f"{_name(transaction.transaction_id)} is in the journals twice"
        seen.add(transaction.transaction_id)


def _outcomes(committed: Sequence[CommittedTransaction], attempts: Sequence[Attempt]) -> Iterable[str]:
    """What a client was told is what the journals hold: the whole request, or nothing."""
    in_journals = {transaction.transaction_id: transaction for transaction in committed}
    for attempt in attempts:
        found = in_journals.pop(attempt.transaction_id, None)
        name = _name(attempt.transaction_id)
        if type(attempt.outcome) is not Committed:
            if found is not None and attempt.outcome is not None:
                yield f"{name} was refused ({attempt.outcome}) and is in a journal"
            continue
        if found is None:
            yield f"{name} was acknowledged and is in no journal"
            continue
        request = attempt.request
        assert request is not None
        if found.t_commit != attempt.outcome.t_commit or found.t_commit <= attempt.t_start:
            yield f"{name} has T_commit {found.t_commit}, was told {attempt.outcome.t_commit}, began {attempt.t_start}"
        if (found.claims, found.mutations) != (request.claims, request.mutations):
            yield f"{name} is in a journal in part, or with something else"
    for transaction_id in in_journals:
        yield f"{_name(transaction_id)} is in a journal, and nobody asked for it"


def _conflicts(one: int, other: int) -> bool:
    """The matrix, written down as a table: the check shares no code with what it checks."""
    compatible = {
        (LockMode.KEY_SHARE, LockMode.KEY_SHARE),
        (LockMode.KEY_SHARE, LockMode.NO_KEY_UPDATE),
        (LockMode.NO_KEY_UPDATE, LockMode.KEY_SHARE),
    }
    return (one, other) not in compatible


def _first_committer_wins(committed: Sequence[CommittedTransaction]) -> Iterable[str]:
    """No other transaction claimed a key, in a conflicting mode, in (T_start, T_commit]."""
    claims: dict[bytes, list[tuple[Timestamp, int, bytes]]] = {}
    for transaction in committed:
        for key, mode in transaction.claims:
            earlier = claims.setdefault(key, [])
            for t_commit, other_mode, other in reversed(earlier):
                if t_commit <= transaction.t_start:
                    break
                if other != transaction.transaction_id and _conflicts(mode, other_mode):
                    yield f"{_name(transaction.transaction_id)} and {_name(other)} both claimed {key!r} and committed"
            earlier.append((transaction.t_commit, mode, transaction.transaction_id))


def _catalog_versions(committed: Sequence[CommittedTransaction]) -> Iterable[str]:
    version = 0
    for transaction in committed:
        if transaction.catalog_version not in (version, CATALOG_ANY):
            yield (
                f"{_name(transaction.transaction_id)} committed on catalog version {transaction.catalog_version} "
                f"while it was {version}"
            )
        if transaction.catalog_change is not None:
            version += 1


def _versions(committed: Sequence[CommittedTransaction]) -> dict[bytes, tuple[list[Timestamp], list[bytes | None]]]:
    versions: dict[bytes, tuple[list[Timestamp], list[bytes | None]]] = {}
    for transaction in committed:
        for key, value in transaction.mutations:
            times, values = versions.setdefault(key, ([], []))
            times.append(transaction.t_commit)
            values.append(value)
    return versions


def _snapshots(committed: Sequence[CommittedTransaction], attempts: Sequence[Attempt]) -> Iterable[str]:
    """Every read saw exactly the transactions committed at or below T_start."""
    versions = _versions(committed)
    for attempt in attempts:
        for key, value in attempt.reads.items():
            times, values = versions.get(key, ([], []))
            at = bisect_right(times, attempt.t_start)
            expected = values[at - 1] if at else None
            if value != expected:
                yield f"{_name(attempt.transaction_id)} read {value!r} of {key!r}, the snapshot has {expected!r}"


def _real_time_order(attempts: Sequence[Attempt]) -> Iterable[str]:
    """Whoever begins after an acknowledgement begins behind the acknowledged transaction."""
    answered = sorted(
        (attempt.answered_ns, attempt.outcome.t_commit) for attempt in attempts if type(attempt.outcome) is Committed
    )
    at = 0
    newest = 0
    for attempt in sorted(attempts, key=lambda attempt: attempt.began_ns):
        while at < len(answered) and answered[at][0] < attempt.began_ns:
            newest = max(newest, answered[at][1])
            at += 1
        if attempt.t_start < newest:
            yield f"{_name(attempt.transaction_id)} began at {attempt.t_start}, behind an answered commit at {newest}"


def _stored(
    committed: Sequence[CommittedTransaction], stored: Mapping[bytes, tuple[list[Timestamp], list[bytes | None]]]
) -> Iterable[str]:
    versions = _versions(committed)
    for key in sorted(versions.keys() | stored.keys()):
        if versions.get(key) != stored.get(key):
            yield f"storage has other versions of {key!r} than the journals"
