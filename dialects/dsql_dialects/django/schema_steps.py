"""What a schema change that DSQL has no statement for consists of: steps that can be stored, run one by one, undone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Ddl:
    """One statement in a transaction of its own; the job of an ASYNC one is awaited.

    ``undo`` takes it back if a later step of the same change fails before the change's point of no return.
    """

    sql: str
    undo: tuple[str, ...] = ()


@dataclass(frozen=True)
class Backfill:
    """``UPDATE table SET assignment`` of the rows ``where`` holds for, in batches along the primary key."""

    table: str  #: quoted
    assignment: str
    where: str
    key: tuple[str, ...]  #: the primary key's columns, quoted


@dataclass(frozen=True)
class CopyRows:
    """``INSERT INTO target (columns) SELECT expressions FROM source`` in batches along the primary key."""

    source: str  #: quoted
    target: str  #: quoted
    columns: tuple[str, ...]  #: quoted
    expressions: tuple[str, ...]
    key: tuple[str, ...]  #: the source's primary key, quoted; if the target has it, too, copied rows are recognized
    key_is_kept: bool


@dataclass(frozen=True)
class DeleteVanished:
    """Delete from ``target`` what isn't in ``source`` any more, in batches along the primary key of both."""

    source: str  #: quoted
    target: str  #: quoted
    key: tuple[str, ...]  #: quoted


@dataclass(frozen=True)
class RestartIdentity:
    """Let the identity of ``target`` go on behind every value that it has or that ``source`` gave out."""

    source: str  #: quoted
    target: str  #: quoted
    column: str  #: not quoted
    source_has_identity: bool


@dataclass(frozen=True)
class PointOfNoReturn:
    """From here on a failed change isn't undone but carried on."""


Step = Ddl | Backfill | CopyRows | DeleteVanished | RestartIdentity | PointOfNoReturn

_KINDS: Mapping[str, type[Any]] = {
    kind.__name__: kind for kind in (Ddl, Backfill, CopyRows, DeleteVanished, RestartIdentity, PointOfNoReturn)
}


def dump_steps(steps: Iterable[Step]) -> list[dict[str, Any]]:
    """Steps as JSON takes them."""
    return [{"step": type(step).__name__, **asdict(step)} for step in steps]


def load_steps(stored: Iterable[dict[str, Any]]) -> list[Step]:
    """The inverse of :func:`dump_steps`.

    :raises KeyError: for a kind of step that this version doesn't know.
    """
    steps: list[Step] = []
    for fields in stored:
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in fields.items() if name != "step"}
        steps.append(_KINDS[fields["step"]](**values))
    return steps
