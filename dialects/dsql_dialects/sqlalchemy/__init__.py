"""SQLAlchemy for Aurora DSQL: ``create_engine("aws_dsql://admin@<endpoint>/postgres")`` is all that it takes."""

from dsql_connectors.core.retry import RetryEvent, RetryPolicy, is_occ_error
from dsql_dialects.sqlalchemy.chunks import execute_in_chunks
from dsql_dialects.sqlalchemy.engine import create_async_engine, create_engine, make_url
from dsql_dialects.sqlalchemy.errors import (
    JobError,
    RowLimitError,
    SavepointError,
    TwoPhaseError,
    UnsupportedError,
)
from dsql_dialects.sqlalchemy.retry import retrying, run_transaction

__all__ = [
    "JobError",
    "RetryEvent",
    "RetryPolicy",
    "RowLimitError",
    "SavepointError",
    "TwoPhaseError",
    "UnsupportedError",
    "create_async_engine",
    "create_engine",
    "execute_in_chunks",
    "is_occ_error",
    "make_url",
    "retrying",
    "run_transaction",
]
