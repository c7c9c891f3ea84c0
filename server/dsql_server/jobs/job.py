"""A background job: as a row of ``sys.jobs``, and with what the machinery needs to run it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import Enum
from struct import Struct

from dsql_server.catalog.state import JOB_PARAMETERS_RELATION_ID, JOBS_RELATION_ID
from dsql_server.encoding import type_oids as oids
from dsql_server.encoding.keys import KeyEncoder, prefix
from dsql_server.encoding.rows import fields, join
from dsql_server.interfaces.messages import Mutation

_RELATION_CLASS_OID = 1259
_POSTGRES_EPOCH_US = 946_684_800_000_000
_SECOND_US = 1_000_000
_U32, _I64 = Struct("!I"), Struct("!q")
_JOB_KEY = KeyEncoder(JOBS_RELATION_ID, [(0, oids.TEXT)])


class JobType(str, Enum):
    """As ``sys.jobs`` names it."""

    INDEX_BUILD = "INDEX_BUILD"
    ANALYZE = "ANALYZE"
    VALIDATE_CONSTRAINT = "VALIDATE_CONSTRAINT"
    DROP = "DROP"


class JobStatus(str, Enum):
    SUBMITTED = "submitted"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"


#: Details of a job that came too late, as Aurora DSQL words the first.
SKIPPED_TABLE_DETAIL = "Skipped job for nonexistent table."
SKIPPED_INDEX_DETAIL = "Skipped job for nonexistent index."

FINISHED = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


@dataclass(frozen=True)
class Job:
    """What to do. ``object_id`` is a relation id, for the engines' oids differ."""

    job_id: str
    job_type: JobType
    started_us: int  #: since the Unix epoch
    table_id: int = 0
    object_id: int = 0
    object_name: str | None = None
    constraint: str = ""  #: to validate
    relations: tuple[int, ...] = ()  #: relation ids whose rows or entries are to be removed

    def row(self, status: JobStatus, now_us: int, details: str | None = None) -> Mutation:
        """The job's row in ``sys.jobs``."""
        row = [
            self.job_id.encode(),
            status.value.encode(),
            details.encode() if details is not None else None,
            self.job_type.value.encode(),
            _U32.pack(_RELATION_CLASS_OID),
            _U32.pack(self.object_id),
            self.object_name.encode() if self.object_name is not None else None,
            _whole_seconds(self.started_us),
            _whole_seconds(now_us) if status is not JobStatus.SUBMITTED else None,
        ]
        return Mutation(_JOB_KEY.from_fields(row), join(row))

    def parameters(self) -> Mutation:
        """What a restarted server runs the job from."""
        return Mutation(_parameters_key(self.job_id), json.dumps(asdict(self)).encode())

    def without_parameters(self) -> Mutation:
        """The job is finished."""
        return Mutation(_parameters_key(self.job_id), None)


def _whole_seconds(us: int) -> bytes:
    """A timestamp as ``sys.jobs`` shows them."""
    return _I64.pack(us // _SECOND_US * _SECOND_US - _POSTGRES_EPOCH_US)


def job_key(job_id: str) -> bytes:
    """Where ``sys.jobs`` keeps the job."""
    return _JOB_KEY.from_fields([job_id.encode()])


def _parameters_key(job_id: str) -> bytes:
    return prefix(JOB_PARAMETERS_RELATION_ID) + job_id.encode()


def read_parameters(value: bytes) -> Job:
    """The inverse of :meth:`Job.parameters`."""
    plain = json.loads(value)
    plain["job_type"] = JobType(plain["job_type"])
    plain["relations"] = tuple(plain["relations"])
    return Job(**plain)


def read_status(row: bytes) -> tuple[JobStatus, int]:
    """Status and time of the last change (microseconds since the Unix epoch) of a row of ``sys.jobs``.

    A job that was only submitted has not changed yet; its time is long ago.
    """
    stored = fields(row)
    return JobStatus((stored[1] or b"").decode()), _I64.unpack(stored[8] or bytes(8))[0] + _POSTGRES_EPOCH_US
