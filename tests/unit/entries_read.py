"""What aggregates read one by one, for the tests of what they should find in packs and layers."""

from __future__ import annotations

import pytest

from dsql_server.storage.visible_rows import VisibleRows


def entries_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of versions of each run that an aggregate reads one by one."""
    found: list[int] = []
    take = VisibleRows.take

    def counting(self: VisibleRows, start: bytes, limit: bytes, entries_max: int | None, t: int) -> object:
        run, end = take(self, start, limit, entries_max, t)
        found.append(run.examined)
        return run, end

    monkeypatch.setattr(VisibleRows, "take", counting)
    return found
