"""Adjudicators: each owns a part of the keys, and decides which transactions commit, and when."""
