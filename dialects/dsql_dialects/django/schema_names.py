"""Names of what exists only while a column or a table is replaced, and of the constraints that stand for NOT NULL."""

from __future__ import annotations

import hashlib

#: The longest name in bytes, as in PostgreSQL.
NAME_BYTES_MAX = 63

_DIGEST_DIGITS = 8


def temporary_name(name: str, purpose: str) -> str:
    """A name derived from another one, the same in every run.

    :param name: not quoted.
    :param purpose: a word that goes behind it.
    """
    return shortened(f"{name}__{purpose}", f"{name}__{purpose}")


def not_null_name(table: str, column: str) -> str:
    """The name of the check that stands for NOT NULL.

    :param table: not quoted, without schema.
    """
    return shortened(f"{table}_{column}_not_null", f"{table}.{column}")


def shortened(name: str, source: str) -> str:
    """``name``, or its beginning and a digest of ``source`` if it is too long."""
    if len(name.encode()) <= NAME_BYTES_MAX:
        return name
    digest = hashlib.sha256(source.encode()).hexdigest()[:_DIGEST_DIGITS]
    tail = f"__{digest}"
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
