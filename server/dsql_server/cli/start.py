"""``dsqlkit start``: serve one embedded cluster in the foreground."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from dsql_server.cluster.server import run_server
from dsql_server.interfaces.limits import DSQL_LIMITS, Limits

if TYPE_CHECKING:
    from dsql_server.cluster.server import ConnectionInfo, Server, ServerSettings


def default_data_dir() -> Path:
    """Where data lives if the user names no place: in the user's data directory, as the platform has it."""
    from platformdirs import user_data_path

    return user_data_path("dsqlkit", appauthor=False) / "cluster"


def chosen_limits(given: Iterable[str]) -> Limits:
    """Aurora DSQL's limits, but for those given as ``name=value``.

    :raises ValueError: a text isn't of that form, or names no limit; it says which there are.
    """
    chosen = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not value.strip().isdecimal():
            raise ValueError(f"{text!r} is not of the form name=value with a whole number as value")
        chosen[name.strip()] = int(value)
    return DSQL_LIMITS.changed(chosen)


def serve(settings: ServerSettings, *, as_json: bool, control: bool) -> None:
    """Start, tell the user how to connect, and serve until SIGINT or SIGTERM.

    :param as_json: print the connection's parameters as one line of JSON, for programs.
    :param control: answer commands on stdin (see :mod:`dsql_server.cli.control`).
    :raises StartError: the server could not start.
    """
    waiting = _Waiting(shown=not as_json and sys.stderr.isatty())

    def on_ready(info: ConnectionInfo, server: Server) -> None:
        waiting.stop()
        if as_json:
            sys.stdout.write(json.dumps(info.as_dict()) + "\n")
            sys.stdout.flush()
        else:
            from dsql_server.cli.connection_help import print_connection_help

            print_connection_help(info, data_dir=settings.data_dir)
        if control:
            from dsql_server.cli.control import serve_control

            serve_control(server)

    waiting.start()
    try:
        run_server(settings, on_ready)
    finally:
        waiting.stop()


class _Waiting:
    """A spinner while the server starts; rich is only imported if somebody sees it."""

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown

    def start(self) -> None:
        if self._shown:
            from dsql_server.cli.terminal import messages

            self._status = messages().status("Starting the cluster")
            self._status.start()

    def stop(self) -> None:
        if self._shown:
            self._shown = False
            self._status.stop()
