"""Names of what exists only while a column or a table is replaced, and of the constraints that stand for NOT NULL."""

from __future__ import annotations

import hashlib

#: The longest name in bytes, as in PostgreSQL.
NAME_BYTES_MAX = 63

_DIGEST_DIGITS = 8

#: By this a check that stands for NOT NULL is told from one that a model asks for.
NOT_NULL_SUFFIX = "_not_null"


def temporary_name(name: str, purpose: str) -> str:
    """A name derived from another one, the same in every run.

    :param name: not quoted.
    :param purpose: a word that goes behind it.
    """
    return shortened(name, f"__{purpose}")


def not_null_name(table: str, column: str) -> str:
    """The name of the check that stands for NOT NULL.

    :param table: not quoted, without schema.
    """
    return shortened(f"{table}_{column}", NOT_NULL_SUFFIX)


def shortened(name: str, suffix: str) -> str:
    """``name`` and ``suffix``; if that is too long, a digest stands for the end of ``name``."""
    if len((name + suffix).encode()) <= NAME_BYTES_MAX:
        return name + suffix
    tail = f"_{hashlib.sha256(name.encode()).hexdigest()[:_DIGEST_DIGITS]}{suffix}"
    return name.encode()[: NAME_BYTES_MAX - len(tail)].decode(errors="ignore") + tail


def split_table(quoted: str) -> tuple[str, str]:
    """Schema with its dot (or nothing), quoted, and the table's name, not quoted."""
    namespace, dot, name = quoted.rpartition('"."')
    if not dot:
        return "", unquoted(quoted)
    return f'{namespace}".', unquoted(name)


def unquoted(name: str) -> str:
    """The name without the quotes around it."""
    return name.strip('"').replace('""', '"')
