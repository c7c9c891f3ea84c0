"""Commands and their options; what they do is imported when they run, so that each starts fast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dsql_server.cli.extras import MissingExtra, extra_required

TOKEN_LIFETIME_S_DEFAULT = 900
TOKEN_LIFETIME_S_MAX = 604_800
DEMO_ORDERS_MAX = 100_000
CLIENTS_MAX = 256
BENCH_SECONDS_MAX = 3_600

#: Whether it can be used is for the server to find out, and to say in one sentence.
_directory = click.Path(path_type=Path, readable=False)
_file = click.Path(path_type=Path, dir_okay=False, writable=True)


@contextmanager
def _extra(extra: str) -> Iterator[None]:
    try:
        with extra_required(extra):
            yield
    except MissingExtra as missing:
        raise click.ClickException(str(missing)) from None


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="dsqlkit", message="%(prog)s %(version)s")
def dsqlkit() -> None:
    """Amazon Aurora DSQL on your own machine."""


@dsqlkit.command()
@click.option("--port", type=click.IntRange(0, 65535), default=5432, show_default=True, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--data-dir", type=_directory, help="Where the data is kept. [default: the user's data directory]")
@click.option("--ephemeral", is_flag=True, help="Keep nothing: the data goes when the server stops.")
@click.option("--region", default="us-east-1", show_default=True, help="AWS region that the endpoint is named for.")
@click.option("--pg-bindir", type=_directory, help="Folder with PostgreSQL 16 binaries. [default: the bundled ones]")
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Another limit than Aurora DSQL's, e.g. transaction_rows=10 to test how an application takes it.",
)
@click.option(
    "--strict-catalog",
    is_flag=True,
    help="Answer OC001 to the first statement of every session that was idle while the catalog changed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON once ready, and nothing else.")
@click.option("--control", is_flag=True, hidden=True, help="Answer commands on stdin; its end stops the server.")
def start(
    port: int,
    host: str,
    data_dir: Path | None,
    ephemeral: bool,
    region: str,
    pg_bindir: Path | None,
    limits: tuple[str, ...],
    strict_catalog: bool,
    as_json: bool,
    control: bool,
) -> None:
    """Start a cluster, print how to connect and serve until interrupted."""
    if ephemeral and data_dir is not None:
        raise click.UsageError("--ephemeral keeps nothing, --data-dir keeps the data: give one of them")
    with _extra("server"):
        from dsql_server.cli.start import chosen_limits, default_data_dir, serve
        from dsql_server.cluster.settings import ServerSettings, StartError

        if not ephemeral and data_dir is None:
            data_dir = default_data_dir()
    try:
        allowed = chosen_limits(limits)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--limit") from None
    settings = ServerSettings(host, port, data_dir, region, pg_bindir, allowed, strict_catalog)
    try:
        serve(settings, as_json=as_json, control=control)
    except StartError as error:
        raise click.ClickException(str(error)) from error


@dsqlkit.command()
@click.option("--host", "--hostname", required=True, help="Endpoint of the cluster.")
@click.option("--admin", is_flag=True, help="For the role admin (the default).")
@click.option("--user", help="For this database role.")
@click.option("--region", help="[default: from the endpoint, or as AWS is configured]")
@click.option(
    "--expires",
    "--expires-in",
    "expires_s",
    type=click.IntRange(1, TOKEN_LIFETIME_S_MAX),
    default=TOKEN_LIFETIME_S_DEFAULT,
    show_default=True,
    metavar="SECONDS",
    help="For how long the token opens connections.",
)
@click.option("--profile", help="AWS profile to take the credentials from.")
def token(host: str, admin: bool, user: str | None, region: str | None, expires_s: int, profile: str | None) -> None:
    """Print an authentication token: the password for one user of one cluster."""
    from dsql_server.cli.token import TokenError, generate_token

    if admin and user not in (None, "admin"):
        raise click.UsageError(f"--admin makes a token for the role admin, not for {user!r}: give one of them")
    try:
        text = generate_token(
            host, region, admin=admin or user in (None, "admin"), expires_s=expires_s, profile=profile
        )
    except TokenError as error:
        raise click.ClickException(str(error)) from error
    click.echo(text)


@dsqlkit.command()
@click.option("--orders", type=click.IntRange(1, DEMO_ORDERS_MAX), default=200, show_default=True)
@click.option("--clients", type=click.IntRange(1, CLIENTS_MAX), default=4, show_default=True)
@click.option("--pg-bindir", type=_directory, help="Folder with PostgreSQL 16 binaries. [default: the bundled ones]")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def demo(orders: int, clients: int, pg_bindir: Path | None, as_json: bool) -> None:
    """Send real orders through a cluster and show what each of its roles did."""
    with _extra("server"):
        from dsql_server.cli.demo import DemoFailed, run_demo
    try:
        run_demo(orders=orders, clients=clients, pg_bindir=pg_bindir, as_json=as_json)
    except DemoFailed as error:
        raise click.ClickException(str(error)) from error


@dsqlkit.group()
def bench() -> None:
    """Measure a cluster, a real one included."""


@bench.command("orders")
@click.option("--url", required=True, help="aws-dsql:// or postgresql:// URL to measure.")
@click.option("--compare", help="A second URL, measured in turn with the first.")
@click.option("--clients", type=click.IntRange(1, CLIENTS_MAX), default=8, show_default=True)
@click.option(
    "--seconds", type=click.FloatRange(0.1, BENCH_SECONDS_MAX), default=10, show_default=True, help="For each URL."
)
@click.option(
    "--conflicts",
    "conflict_share",
    type=click.FloatRange(0, 1),
    default=0,
    show_default=True,
    help="Share of the created orders that also update one and the same row.",
)
@click.option("--json", "json_file", type=_file, help="Write the figures to this file.")
@click.option("--plot", "plot_file", type=_file, help="Draw the latencies into this PNG file.")
def bench_orders(
    url: str,
    compare: str | None,
    clients: int,
    seconds: float,
    conflict_share: float,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Create orders, get them by id and list them by time.

    The tables are made for the run and dropped after it.
    """
    with _extra("server"):
        from dsql_server.cli.bench import BenchFailed, BenchSettings, run_bench
    if plot_file is not None:
        with _extra("plot"):
            import matplotlib  # noqa: F401 - to know it before the measurement, not after it
    settings = BenchSettings(
        urls=(url,) if compare is None else (url, compare),
        clients=clients,
        seconds=seconds,
        conflict_share=conflict_share,
        json_file=json_file,
        plot_file=plot_file,
    )
    try:
        run_bench(settings)
    except BenchFailed as error:
        raise click.ClickException(str(error)) from error
