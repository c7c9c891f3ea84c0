"""Journals: ordered, replicated, append-only logs of decided transactions."""
