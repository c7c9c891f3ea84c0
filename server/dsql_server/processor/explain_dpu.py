"""Estimates in DPU, Aurora DSQL's unit of work, of one statement.

The rates are read off published plans: a second of planning and execution is one DPU, a row that storage reads and a
MiB of it cost what they cost there, and so does each row or index entry that is written.
"""

from __future__ import annotations

from dataclasses import dataclass

COMPUTE_DPU_PER_S = 1.0
READ_DPU_PER_ROW = 0.000175
READ_DPU_PER_MIB = 1.82
WRITE_DPU_PER_MUTATION = 0.00625
#: Reads and writes of a transaction are charged at least so much, where there are any.
READ_MINIMUM_DPU = 0.00375
WRITE_MINIMUM_DPU = 0.05
_MIB = 1 << 20


@dataclass(frozen=True)
class Work:
    """What a statement made the engine and the storage nodes do."""

    compute_s: float = 0.0
    rows_read: int = 0
    bytes_read: int = 0
    mutations: int = 0


@dataclass(frozen=True)
class DpuEstimate:
    compute: float
    read: float
    write: float

    @property
    def total(self) -> float:
        return self.compute + self.read + self.write

    def lines(self) -> list[str]:
        """As EXPLAIN prints it."""
        return [
            "Statement DPU Estimate:",
            f"  Compute: {self.compute:.5f} DPU",
            f"  Read: {self.read:.5f} DPU{_minimum(self.read, READ_MINIMUM_DPU)}",
            f"  Write: {self.write:.5f} DPU{_minimum(self.write, WRITE_MINIMUM_DPU)}",
            f"  Total: {self.total:.5f} DPU",
        ]

    def plain(self) -> dict[str, float]:
        """For the formats that programs read."""
        return {
            "Compute": round(self.compute, 5),
            "Read": round(self.read, 5),
            "Write": round(self.write, 5),
            "Total": round(self.total, 5),
        }


def _minimum(amount: float, minimum: float) -> str:
    return f" (Transaction minimum: {minimum:.5f})" if 0 < amount < minimum else ""


def estimate_dpu(work: Work) -> DpuEstimate:
    """The estimate of a statement's work."""
    return DpuEstimate(
        work.compute_s * COMPUTE_DPU_PER_S,
        work.rows_read * READ_DPU_PER_ROW + work.bytes_read / _MIB * READ_DPU_PER_MIB,
        work.mutations * WRITE_DPU_PER_MUTATION,
    )
