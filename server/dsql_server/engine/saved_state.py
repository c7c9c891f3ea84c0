"""What an engine has been made into, kept for the next one, which starts from there instead of from the template.

<directory>/data/         the data directory of an engine that was stopped in order
<directory>/state.json    the template it was made from, and what its maker says of it

The engine never syncs, so a saved state is a copy, complete before it gets its name. One that is missing, half removed
or made from another template isn't used: whoever saved it can make it again.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from dsql_server.engine.account import Account, can_reach
from dsql_server.engine.template import copy_data

_STATE_FILE = "state.json"
_UNFINISHED_SUFFIX = ".new"


class SavedState:
    """The state saved at ``directory``, if there is one."""

    def __init__(self, directory: Path, account: Account) -> None:
        self._directory = directory
        self._account = account
        self.data = directory / "data"

    def label(self, template: str) -> str | None:
        """What its maker said of it; None if there is none that was made from ``template``."""
        if not can_reach(self.data, self._account):
            return None
        try:
            state = json.loads((self._directory / _STATE_FILE).read_text(encoding="utf-8"))
            if state["template"] != template or not self.data.is_dir():
                return None
            return str(state["label"])
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def save(self, data: Path, template: str, label: str, pg_controldata: Path) -> bool:
        """Put a copy of a stopped engine's data in the place of what was saved; False if its account can't get there.

        :raises EngineError: it can't be copied. What was saved before may be gone then.
        :raises OSError: the same.
        """
        if not can_reach(self.data, self._account):
            return False
        unfinished = self._directory.with_name(self._directory.name + _UNFINISHED_SUFFIX)
        shutil.rmtree(unfinished, ignore_errors=True)
        try:
            copy = unfinished / "data"
            copy.mkdir(mode=0o700, parents=True)
            unfinished.chmod(0o711 if self._account.switched else 0o700)
            self._account.give(copy)
            copy_data(data, copy, self._account)
            _remove_needless_log(copy, pg_controldata)
            state = json.dumps({"template": template, "label": label})
            (unfinished / _STATE_FILE).write_text(state, encoding="utf-8")
            os.sync()  # a power failure leaves it whole, or without its name
            self.discard()
            unfinished.rename(self._directory)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
        return True

    def discard(self) -> None:
        """Remove what was saved."""
        (self._directory / _STATE_FILE).unlink(missing_ok=True)
        shutil.rmtree(self._directory, ignore_errors=True)


def _remove_needless_log(data: Path, pg_controldata: Path) -> None:
    """Drop the write-ahead log of a data directory but for the file that the last checkpoint is in.

    Nothing else of it is read after an orderly stop, and it may be three quarters of all. After another stop, or where
    the program isn't installed, all of it stays.
    """
    if not pg_controldata.exists():
        return
    done = subprocess.run([pg_controldata, data], capture_output=True, text=True, env={"LC_ALL": "C"}, check=False)
    said = {name: value.strip() for name, _, value in (line.partition(":") for line in done.stdout.splitlines())}
    needed = said.get("Latest checkpoint's REDO WAL file")
    if said.get("Database cluster state") != "shut down" or needed is None:
        return
    if (data / "pg_wal" / needed).exists():
        for segment in (data / "pg_wal").iterdir():
            if segment.is_file() and segment.name != needed:
                segment.unlink()
