"""SQLAlchemy for Aurora DSQL: ``create_engine("aws_dsql://admin@<endpoint>/postgres")`` is all that it takes."""

from dsql_dialects.sqlalchemy.engine import create_async_engine, create_engine, make_url
from dsql_dialects.sqlalchemy.errors import (
    JobError,
    RowLimitError,
    SavepointError,
    TwoPhaseError,
    UnsupportedError,
)

__all__ = [
    "JobError",
    "RowLimitError",
    "SavepointError",
    "TwoPhaseError",
    "UnsupportedError",
    "create_async_engine",
    "create_engine",
    "make_url",
]
