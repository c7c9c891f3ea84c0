"""Identifiers as Aurora DSQL writes all of its own: 16 bytes in base32, in lower case and without padding."""

from __future__ import annotations

import base64
import os

#: Characters of an identifier.
IDENTIFIER_LENGTH = 26
IDENTIFIER_ALPHABET = frozenset("abcdefghijklmnopqrstuvwxyz234567")
_IDENTIFIER_BYTES = 16


def new_identifier() -> str:
    """A new random identifier."""
    return base64.b32encode(os.urandom(_IDENTIFIER_BYTES)).decode().rstrip("=").lower()
