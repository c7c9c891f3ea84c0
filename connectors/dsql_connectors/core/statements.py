"""The little that must be known of a statement's text before it is run again."""

from __future__ import annotations


def is_single_statement(text: str | bytes) -> bool:
    """Whether ``text`` is surely one statement: of several, some may be committed when another one loses.

    A semicolon within a literal counts too: then the statement is not replayed, which is always safe.
    """
    decoded = text.decode("latin-1") if isinstance(text, bytes) else text
    return ";" not in decoded.rstrip().removesuffix(";")
