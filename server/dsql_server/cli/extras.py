"""Which optional dependency is missing, and how to install it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

#: Packages that belong to this distribution: that one of them can't be imported is a defect, not a missing extra.
_OWN_PREFIX = "dsql_"


class MissingExtra(Exception):
    """An optional dependency is not installed; the text is the sentence for the user."""


@contextmanager
def extra_required(extra: str) -> Iterator[None]:
    """Around imports of optional dependencies.

    :param extra: the extra of the distribution that brings them.
    :raises MissingExtra: instead of ModuleNotFoundError for a third party's module.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing.startswith(_OWN_PREFIX):
            raise
        raise MissingExtra(
            f"the Python package {missing!r} is not installed: run pip install 'dsqlkit[{extra}]'"
        ) from error
