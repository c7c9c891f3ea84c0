"""Bytes that several roles read: stored rows, order-preserving keys and PostgreSQL binary values.

``rows``: the stored value of a row, which is PostgreSQL's COPY BINARY tuple. ``keys``: keys that sort as PostgreSQL
sorts the values. ``numeric``: PostgreSQL's binary numeric. ``parameters``: client parameters and SQL constants as
binary values of a wanted type. ``arrays``: the elements of array parameters. ``type_oids``: names for type OIDs.
"""
