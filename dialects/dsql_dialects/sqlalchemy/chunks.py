"""More rows than a DSQL transaction may change, spread over several transactions: because the caller says so."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, overload

from sqlalchemy.engine import Engine
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import sessionmaker

from dsql_connectors.core.retry import RetryPolicy
from dsql_dialects.sqlalchemy.base import TRANSACTION_ROWS_MAX
from dsql_dialects.sqlalchemy.retry import run_transaction

#: Rows of a few kilobytes stay below DSQL's 10 MiB a transaction with this.
ROWS_A_TRANSACTION = 1000

Row = Mapping[str, Any]


@overload
def execute_in_chunks(
    source: Engine | sessionmaker[Any],
    statement: Any,
    rows: Iterable[Row],
    *,
    rows_per_transaction: int = ROWS_A_TRANSACTION,
    retry: RetryPolicy | bool | None = None,
) -> Iterator[int]: ...
@overload
def execute_in_chunks(
    source: AsyncEngine | async_sessionmaker[Any],
    statement: Any,
    rows: Iterable[Row],
    *,
    rows_per_transaction: int = ROWS_A_TRANSACTION,
    retry: RetryPolicy | bool | None = None,
) -> AsyncIterator[int]: ...
def execute_in_chunks(
    source: Any,
    statement: Any,
    rows: Iterable[Row],
    *,
    rows_per_transaction: int = ROWS_A_TRANSACTION,
    retry: RetryPolicy | bool | None = None,
) -> Any:
    """Execute ``statement`` once for each of ``rows``, in as many transactions as it takes; yields after each how many
    rows are committed by then: ``for done in execute_in_chunks(engine, insert(t), rows): …``.

    It is **not** one transaction: when it raises, the rows yielded before are committed and the others aren't. Each
    transaction is replayed when it loses to a concurrent one.

    :param rows: an iterable, read once; it may be a generator over more rows than fit into memory.
    :param rows_per_transaction: at most 3,000; fewer if a row is large, since a transaction holds at most 10 MiB.
    :raises ValueError: for a number of rows that DSQL doesn't take.
    """
    if not 0 < rows_per_transaction <= TRANSACTION_ROWS_MAX:
        raise ValueError(
            f"rows_per_transaction is {rows_per_transaction}; a DSQL transaction changes 1 to {TRANSACTION_ROWS_MAX}"
        )
    chunks = _chunks(rows, rows_per_transaction)
    if isinstance(source, (AsyncEngine, async_sessionmaker)):
        return _execute_async(source, statement, chunks, retry)
    return _execute(source, statement, chunks, retry)


def _execute(
    source: Any, statement: Any, chunks: Iterator[list[Row]], retry: RetryPolicy | bool | None
) -> Iterator[int]:
    done = 0
    for chunk in chunks:
        run_transaction(
            source, lambda connection, chunk=chunk: _close(connection.execute(statement, chunk)), retry=retry
        )
        done += len(chunk)
        yield done


async def _execute_async(
    source: Any, statement: Any, chunks: Iterator[list[Row]], retry: RetryPolicy | bool | None
) -> AsyncIterator[int]:
    done = 0
    for chunk in chunks:

        async def execute(connection: Any, chunk: list[Row] = chunk) -> None:
            _close(await connection.execute(statement, chunk))

        await run_transaction(source, execute, retry=retry)
        done += len(chunk)
        yield done


def _close(result: Any) -> None:
    result.close()


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while chunk := list(islice(remaining, size)):
        yield chunk
