"""How to connect to a cluster that has just started, ready to copy."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from dsql_server.cli.terminal import results

if TYPE_CHECKING:
    from dsql_server.cluster.server import ConnectionInfo


def environment_lines(info: ConnectionInfo) -> list[str]:
    """Shell lines that give AWS clients the cluster's credentials and region."""
    variables = {
        "AWS_ACCESS_KEY_ID": info.access_key_id,
        "AWS_SECRET_ACCESS_KEY": info.secret_access_key,
        "AWS_REGION": info.region,
    }
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def psql_line(info: ConnectionInfo) -> str:
    """A shell line that opens psql with a fresh token; it needs the environment of :func:`environment_lines`."""
    parameters = {
        "host": info.endpoint,
        "hostaddr": info.host,
        "port": info.port,
        "user": info.user,
        "dbname": info.database,
        "sslmode": "verify-full",
        "sslrootcert": _conninfo_value(info.ca_file),
    }
    conninfo = " ".join(f"{name}={value}" for name, value in parameters.items())
    token = f"dsqlkit token --admin --host {info.endpoint} --region {info.region}"
    return f'PGPASSWORD="$({token})" psql {shlex.quote(conninfo)}'


def _conninfo_value(text: str) -> str:
    if text and not set(text) & set(" '\\"):
        return text
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def print_connection_help(info: ConnectionInfo, *, data_dir: Path | None) -> None:
    """Print the URL, the environment and a psql line."""
    out = results()
    out.print(f"[bold]Cluster {info.cluster_id}[/bold] in {info.region} is ready.")
    if data_dir is None:
        out.print("Its data goes when it stops (Ctrl-C).")
    else:
        out.print("Its data is in ", end="")
        out.print(data_dir, markup=False, end="")
        out.print("; Ctrl-C stops it.")
    for title, lines in (
        ("Credentials, for connectors, the AWS CLI and SDKs:", environment_lines(info)),
        ("URL, for the connectors:", [info.url]),
        ("psql:", [psql_line(info)]),
    ):
        out.print(f"\n[bold]{title}[/bold]")
        for line in lines:
            out.print(line, markup=False)
