"""The words that Aurora DSQL's grammar has beside PostgreSQL 16's, and which of them may stand where."""

from __future__ import annotations

#: PostgreSQL's categories in ``pg_get_keywords()``, with the number of words that Aurora DSQL has in each.
CATEGORIES = {"U": 317, "C": 55, "T": 23, "R": 79}
#: Words that may be a column's label without AS.
BARE_LABELS = 435

#: Not PostgreSQL's, by category. All of them may be labels without AS.
OWN_WORDS = {"U": ("aws", "iam"), "R": ("async",)}

#: Unreserved words that no function called by itself may have: one begins an operator's name, the other a constructor
#: that is newer than PostgreSQL 16, but known to the parser.
NO_FUNCTION = frozenset({"operator", "json"})
