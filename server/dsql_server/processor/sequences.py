"""Sequences are global: a query processor hands out only values that it leased from the commit path.

A sequence's counter counts *positions* from 0; position n is the n-th value after a *base*, in steps of the increment.
``setval`` and ALTER SEQUENCE start a new *epoch* with another base and a new counter, so that leases need not be
fenced: values leased before belong to the epoch before, as PostgreSQL's cached values do.

Before a statement that may call ``nextval`` the engine's own sequence is set to the leased block. What it took is read
after the statement, and whatever lies behind the block must still be free to lease then; so nothing is answered
that another processor may have handed out. None of this is undone by a rollback, as in PostgreSQL.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from dataclasses import dataclass
from struct import Struct
from typing import NamedTuple, Protocol

from dsql_server.catalog.changes import Catalog
from dsql_server.catalog.state import COUNTER_RELATION_ID, Sequence
from dsql_server.encoding.keys import prefix
from dsql_server.encoding.rows import fields
from dsql_server.interfaces import protocol as p
from dsql_server.interfaces.commit_path import LEASE_FAILED, CommitPath
from dsql_server.interfaces.messages import CATALOG_ANY, Claim, CommitRequest, Committed, LockMode, Mutation
from dsql_server.processor.engine_connection import Answer, EngineConnection
from dsql_server.processor.errors import EngineRefusal, SqlError, data_conflict, server_unavailable
from dsql_server.processor.sequence_uses import SequenceUse, SequenceUses

#: How often a setval that conflicts with leases of the same sequence is tried.
SETVAL_ATTEMPTS_MAX = 100
#: Values that a statement of unknown length is expected to need at most, of a sequence with a large cache.
VALUES_EXPECTED = 3000

_EPOCH_BYTES = 4
_STATE_SUFFIX = b"\xff" * _EPOCH_BYTES
_TRANSACTION_ID_BYTES = 16
_COUNTER = Struct("!q")
_FORGET_CURRENT = "DISCARD SEQUENCES"
_RECORDED = "pg_catalog.engine_setting('dsqlkit.setval', true)"


class Engine(Protocol):
    """What this module needs of the executor."""

    connection: EngineConnection

    async def collect_as_loader(self, batch: bytes) -> Answer: ...

    async def submit(self, request: CommitRequest) -> Committed: ...

    async def lease(self, key: bytes, count: int) -> int: ...


class _Epoch(NamedTuple):
    """A sequence's state but for its counter: the row under its state key."""

    number: int
    base: int  #: the value at position 0
    called: bool  #: the value before base counts as handed out

    def row(self) -> bytes:
        return json.dumps(list(self)).encode()


@dataclass
class _Block:
    """Leased positions of one epoch: those from ``at`` to ``end`` are left. ``first`` is what the engine began with."""

    sequence: Sequence
    epoch: _Epoch
    first: int
    at: int
    end: int
    installed: bool = False
    confirmed: bool = False  #: a statement that used it succeeded, so the engine is known to have it


def counter_key(sequence: Sequence, epoch: int) -> bytes:
    """Where the counter of a sequence's epoch is stored."""
    return _sequence_key(sequence) + epoch.to_bytes(_EPOCH_BYTES, "big")


def _state_key(sequence: Sequence) -> bytes:
    return _sequence_key(sequence) + _STATE_SUFFIX


def _sequence_key(sequence: Sequence) -> bytes:
    return prefix(COUNTER_RELATION_ID) + sequence.relation_id.to_bytes(4, "big")


def value_at(sequence: Sequence, base: int, position: int) -> int | None:
    """The value at a position; None behind the end of a sequence that doesn't cycle."""
    value = base + position * sequence.increment
    if sequence.minimum <= value <= sequence.maximum:
        return value
    if not sequence.cycle:
        return None
    if sequence.increment > 0:
        before = (sequence.maximum - base) // sequence.increment + 1
        period = (sequence.maximum - sequence.minimum) // sequence.increment + 1
        return sequence.minimum + (position - max(before, 0)) % period * sequence.increment
    before = (base - sequence.minimum) // -sequence.increment + 1
    period = (sequence.maximum - sequence.minimum) // -sequence.increment + 1
    return sequence.maximum + (position - max(before, 0)) % period * sequence.increment


def steps_between(sequence: Sequence, first: int, last: int) -> int:
    """How many positions lie between two values, fewer than a whole cycle."""
    if (last - first) * sequence.increment >= 0:
        return (last - first) // sequence.increment
    if sequence.increment > 0:
        return (sequence.maximum - first) // sequence.increment + 1 + (last - sequence.minimum) // sequence.increment
    return (first - sequence.minimum) // -sequence.increment + 1 + (sequence.maximum - last) // -sequence.increment


class SequenceBlocks:
    """The leased blocks of one session, and its engine's sequences. See the module."""

    def __init__(self, engine: Engine, commit_path: CommitPath, catalog: Catalog) -> None:
        self._engine = engine
        self._path = commit_path
        self._catalog = catalog
        self._version = -1
        self._blocks: dict[int, _Block] = {}
        self._got: dict[int, int] = {}  #: by relation id, what currval has to answer in this session
        self._shown: dict[int, Sequence] = {}  #: whose currval is their last leased value until it is put back

    # -- before a statement ------------------------------------------------------------------------------------

    async def prepare(self, uses: SequenceUses) -> None:
        """Lease what the statement is expected to take. Raises SqlError if the commit path can't."""
        if self._version != self._catalog.version:
            # A definition may have given the engine's sequences another state.
            self._blocks.clear()
            self._version = self._catalog.version
        await self.put_back()
        if uses.shown:
            await self.show_current(list(uses.shown))
        for use in uses.taken:
            await self._provide(use)

    async def _provide(self, use: SequenceUse) -> None:
        sequence = use.sequence
        needed = use.count
        if sequence.cache > 1 and not use.exact:
            needed = max(needed, VALUES_EXPECTED)
        block = self._blocks.get(sequence.relation_id)
        if block is not None and block.confirmed and block.end - block.at >= needed:
            return
        epoch = self._epoch(sequence)
        count = -(-needed // sequence.cache) * sequence.cache
        first = await self._lease(sequence, epoch, count)
        if block is not None and block.confirmed and block.epoch == epoch and block.end == first:
            block.end += count
        else:
            self._blocks[sequence.relation_id] = _Block(sequence, epoch, first, first, first + count)

    def install(self) -> list[bytes]:
        """The statements that set the engine's sequences to the blocks leased last."""
        statements = []
        for block in self._blocks.values():
            if not block.installed:
                block.installed = True
                value = value_at(block.sequence, block.epoch.base, block.first)
                statements.append(self._set_engine(block.sequence, value, called=False))
        return statements

    def _set_engine(self, sequence: Sequence, value: int | None, called: bool) -> bytes:
        """Messages that set the engine's sequence; ``value`` None: to its end, so that it says that it is there."""
        if value is None:
            value, called = (sequence.maximum if sequence.increment > 0 else sequence.minimum), True
        name, parse = self._engine.connection.statement("SELECT pg_catalog.engine_setval($1::regclass, $2, $3)")
        fields = (sequence.qualified_name, str(value), "t" if called else "f")
        body = b"".join(p.pack_i32(len(e := f.encode())) + e for f in fields)
        bind = b"\x00" + name + b"\x00\x00\x00" + p.pack_i16(len(fields)) + body + b"\x00\x00"
        return parse + p.message(b"B", bind) + p.EXECUTE_UNNAMED

    # -- after a statement ---------------------------------------------------------------------------------------

    async def settle(self, uses: SequenceUses) -> None:
        """Account for what the statement took and set.

        Raises SqlError: OC000 if it took more than was leased and another processor leased those values meanwhile.
        """
        if uses.sets:
            await self._take_over_set_values()
        if uses.taken:
            await self._settle_taken(uses)
        await self.put_back()

    async def _settle_taken(self, uses: SequenceUses) -> None:
        sequences = [use.sequence for use in uses.taken]
        for use, (_, _, current) in zip(uses.taken, await self._engine_states(sequences), strict=True):
            block = self._blocks.get(use.sequence.relation_id)
            self._note_got(use.sequence, current)
            if block is None:
                continue  # setval took it
            block.confirmed = True
            first = value_at(block.sequence, block.epoch.base, block.first)
            if current is not None and first is not None:
                block.at = block.first + steps_between(block.sequence, first, current) + 1
            try:
                await self._cover(use, block)
            finally:
                if block.sequence.cache == 1:
                    # Kept for later, its values would come out of order with those of other sessions.
                    del self._blocks[block.sequence.relation_id]

    async def _cover(self, use: SequenceUse, block: _Block) -> None:
        """Lease what was taken beyond the block, if it is still the next to be leased."""
        if block.at <= block.end:
            return
        cache = block.sequence.cache
        missing = -(-(block.at - block.end) // cache) * cache
        first = await self._lease(block.sequence, block.epoch, missing)
        if first != block.end or self._epoch(block.sequence) != block.epoch:
            use.count = max(use.count, block.at - block.first)  # for when it is tried again
            self._blocks.pop(block.sequence.relation_id, None)
            raise data_conflict()
        block.end += missing

    async def _engine_states(self, sequences: list[Sequence]) -> list[tuple[int, bool, int | None]]:
        """Of each: the engine's last_value and is_called, and the value that this session got last from its block."""
        selects = " UNION ALL ".join(
            f"SELECT {number}, last_value, is_called, CASE WHEN is_called THEN "
            f"pg_catalog.currval({_literal(s.qualified_name)}::pg_catalog.regclass) END FROM {s.qualified_name}"
            for number, s in enumerate(sequences)
        )
        rows = await self._rows(f"{selects} ORDER BY 1")
        return [(int(r[1] or 0), r[2] == b"t", int(r[3]) if r[3] is not None else None) for r in rows]

    async def _rows(self, sql: str) -> list[list[bytes | None]]:
        name, parse = self._engine.connection.statement(sql)
        answer = await self._engine.collect_as_loader(parse + p.bind_statement(name) + p.EXECUTE_UNNAMED)
        if answer.error is not None:
            raise EngineRefusal(answer.error, hide_context=True)
        return [p.data_row_fields(row) for rows in answer.rows for row in rows]

    # -- setval and ALTER SEQUENCE ---------------------------------------------------------------------------------

    async def _take_over_set_values(self) -> None:
        """Make global what the statement set in the engine."""
        recorded = await self._rows(
            "SELECT s.oid::int8, n.nspname, s.relname FROM pg_catalog.unnest(pg_catalog.string_to_array("
            f"NULLIF({_RECORDED}, ''), ',')) AS r(id) JOIN pg_catalog.pg_class s ON s.oid = r.id::oid "
            "JOIN pg_catalog.pg_namespace n ON n.oid = s.relnamespace GROUP BY 1, 2, 3"
        )
        if not recorded:
            return
        await self._rows("SELECT pg_catalog.set_config('dsqlkit.setval', '', false)")
        names = {((r[1] or b"").decode(), (r[2] or b"").decode()) for r in recorded}
        sequences = [s for s in self._catalog.state.sequences.values() if (s.schema, s.name) in names]
        for sequence, (last, called, current) in zip(sequences, await self._engine_states(sequences), strict=True):
            self._note_got(sequence, current)
            self._blocks.pop(sequence.relation_id, None)
            await self._start_epoch(sequence, last, called)

    async def _start_epoch(self, sequence: Sequence, last: int, called: bool) -> None:
        for _ in range(SETVAL_ATTEMPTS_MAX):
            t = self._path.begin()
            claims, mutations = self._next_epoch(sequence, self._epoch(sequence), last, called, sequence.increment)
            try:
                await self._engine.submit(
                    CommitRequest(os.urandom(_TRANSACTION_ID_BYTES), t, CATALOG_ANY, claims, mutations)
                )
                return
            except SqlError as error:
                if error.sqlstate != data_conflict().sqlstate:
                    raise
        raise server_unavailable()

    @staticmethod
    def _next_epoch(
        sequence: Sequence, epoch: _Epoch, last: int, called: bool, increment: int
    ) -> tuple[tuple[Claim, ...], tuple[Mutation, ...]]:
        following = _Epoch(epoch.number + 1, last + increment if called else last, called)
        key = _state_key(sequence)
        return (Claim(key, int(LockMode.UPDATE)),), (Mutation(key, following.row()),)

    async def show_current(self, sequences: list[Sequence]) -> None:
        """Give the engine's sequences the state that the leases so far have left, for whoever reads or alters it."""
        batch = b""
        for sequence in sequences:
            self._blocks.pop(sequence.relation_id, None)
            batch += self._set_engine(sequence, *self._current(sequence))
        self._shown |= {sequence.relation_id: sequence for sequence in sequences}
        await self._tell_engine(batch)

    async def put_back(self, changed: Mapping[int, Sequence] | None = None, dropped: Container[int] = ()) -> None:
        """Let currval and lastval answer again what this session got: giving a sequence a state has set them, too.

        The state itself may go, as the sequences' next users set it anew. ``changed`` as in :meth:`altered`, and the
        relation ids of the ``dropped``, for a definition that isn't in the catalog yet.
        """
        if not self._shown:
            return
        known = {**self._catalog.state.sequences, **(changed or {})}
        sequences = {i: s for i, s in known.items() if i not in dropped}
        got = [sequences[i] for i in self._shown if i in self._got and i in sequences]
        self._shown.clear()
        batch = b"".join(self._set_engine(s, self._got[s.relation_id], called=True) for s in got)
        if not self._got:
            # Without a value there is no currval either, which only forgetting all of them brings about.
            name, parse = self._engine.connection.statement(_FORGET_CURRENT)
            batch = parse + p.bind_statement(name) + p.EXECUTE_UNNAMED
        await self._tell_engine(batch)

    def _note_got(self, sequence: Sequence, current: int | None) -> None:
        if current is not None:
            self._got[sequence.relation_id] = current

    async def _tell_engine(self, batch: bytes) -> None:
        if not batch:
            return
        answer = await self._engine.collect_as_loader(batch)
        if answer.error is not None:
            raise EngineRefusal(answer.error, hide_context=True)

    async def altered(
        self, sequences: list[Sequence], changed: Mapping[int, Sequence]
    ) -> tuple[list[Claim], list[Mutation]]:
        """What a definition has to commit that gave sequences another state or other parameters in the engine.

        The engine had their current state before. ``changed`` holds by relation id those whose description changed.
        """
        claims: list[Claim] = []
        mutations: list[Mutation] = []
        now = [changed.get(s.relation_id, s) for s in sequences]
        if not now:
            return claims, mutations
        for before, after, (last, called, _) in zip(sequences, now, await self._engine_states(now), strict=True):
            if self._current(before) == (last, called) and before.counting == after.counting:
                continue
            epoch = self._epoch(before)
            more_claims, more_mutations = self._next_epoch(before, epoch, last, called, after.increment)
            # Values leased meanwhile would be handed out twice.
            claims += [*more_claims, Claim(counter_key(before, epoch.number), int(LockMode.UPDATE))]
            mutations += more_mutations
        return claims, mutations

    # -- the shared state ------------------------------------------------------------------------------------------

    def _epoch(self, sequence: Sequence) -> _Epoch:
        stored = self._path.storage.get(_state_key(sequence), self._path.begin())
        return _Epoch(*json.loads(stored)) if stored is not None else _Epoch(0, sequence.start, False)

    def _current(self, sequence: Sequence) -> tuple[int, bool]:
        """last_value and is_called, as far as values were leased."""
        epoch = self._epoch(sequence)
        stored = self._path.storage.get(counter_key(sequence, epoch.number), self._path.begin())
        position = _COUNTER.unpack(fields(stored)[0] or b"")[0] if stored is not None else 0
        if position == 0:
            return (epoch.base - sequence.increment, True) if epoch.called else (epoch.base, False)
        last = value_at(sequence, epoch.base, position - 1)
        if last is None:
            last = sequence.maximum if sequence.increment > 0 else sequence.minimum
        return last, True

    async def _lease(self, sequence: Sequence, epoch: _Epoch, count: int) -> int:
        first = await self._engine.lease(counter_key(sequence, epoch.number), count)
        if first == LEASE_FAILED:
            raise server_unavailable()
        return first


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
