"""What goes to the terminal: results to stdout, progress to stderr and only if somebody watches."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


def results() -> Console:
    """For results. Lines are not cut or wrapped by hand, so that commands can be copied."""
    return Console(soft_wrap=True, highlight=False)


def messages() -> Console:
    """For progress and remarks; on stderr, so that results can be piped."""
    return Console(stderr=True, highlight=False)


def progress_bar(console: Console) -> Progress:
    """A bar that vanishes when it is done and never shows up in a log file."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
