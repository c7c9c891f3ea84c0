"""The version that connections announce; a constant, because reading package metadata costs 15 ms at import."""

VERSION = "0.1.0"
