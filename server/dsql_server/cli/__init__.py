"""The ``dsqlkit`` command."""

from __future__ import annotations

import sys

from dsql_server.cli.extras import MissingExtra, extra_required


def main() -> None:
    """Entry point of the console script; exits with 0, 1 (one sentence on stderr) or 2 (wrong usage)."""
    try:
        with extra_required("server"):
            from dsql_server.cli.commands import dsqlkit
    except MissingExtra as missing:
        # click itself belongs to the extra, so this sentence has to do without it.
        sys.exit(f"Error: {missing}")
    dsqlkit()
