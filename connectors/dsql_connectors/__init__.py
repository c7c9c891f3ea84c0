"""Connectors that turn ``aws-dsql://`` URLs into authenticated connections."""
