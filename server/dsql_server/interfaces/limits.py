"""Aurora DSQL's limits: each by name, with its unit; lower where somebody tests how an application takes them.

Limits that the grammar or a type decides (columns of a key, length of a char) never change, so they stand where they
are checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property

KIB = 1024
MIB = 1024 * KIB
TIB = 1024 * 1024 * MIB

#: No limit is set higher.
VALUE_MAX = 2**62

#: A transaction older than this can't commit, in seconds; adjudicators remember recent claims for a little longer.
TRANSACTION_AGE_MAX_S = 300


@dataclass(frozen=True)
class Limits:
    """What a cluster allows. The defaults are Aurora DSQL's."""

    transaction_rows: int = 3000  #: rows inserted, updated and deleted, cascades included
    transaction_size_bytes: int = 10 * MIB  #: rows and index entries, checked at COMMIT
    transaction_age_s: int = TRANSACTION_AGE_MAX_S
    row_size_bytes: int = 2 * MIB
    column_size_bytes: int = 1 * MIB  #: a text, bytea, json or jsonb
    key_size_bytes: int = 1981  #: values of a primary key or index together; the largest that was seen accepted
    query_memory_kb: int = 128 * KIB  #: temporary space of one query
    connections: int = 10_000
    connections_per_s: int = 100  #: refilled so fast, up to ``connection_burst``
    connection_burst: int = 1000
    connection_age_s: int = 3600
    cluster_size_bytes: int = 10 * TIB
    schemas: int = 10
    tables: int = 1000
    views: int = 5000
    sequences: int = 5000
    indexes_per_table: int = 24  #: with the primary key's
    columns_per_table: int = 255
    statistics_per_table: int = 5

    @cached_property
    def small_row_bytes(self) -> int:
        """A row up to this size breaks no limit of a row, a column or a key."""
        return min(self.row_size_bytes, self.column_size_bytes, self.key_size_bytes)

    def changed(self, given: Mapping[str, int]) -> Limits:
        """These limits with some of them others, usually lower.

        Raises ValueError for a name that isn't a limit's, and for a value below 1 or above what can be had here.
        """
        known = [f.name for f in fields(self)]
        for name, value in given.items():
            if name not in known:
                raise ValueError(f'there is no limit "{name}"; the limits are {", ".join(known)}')
            # Adjudicators and storage remember no more.
            highest = TRANSACTION_AGE_MAX_S if name == "transaction_age_s" else VALUE_MAX
            if not 1 <= value <= highest:
                raise ValueError(f'the limit "{name}" can be from 1 to {highest}, not {value}')
        return replace(self, **dict(given))


#: What Aurora DSQL allows.
DSQL_LIMITS = Limits()
