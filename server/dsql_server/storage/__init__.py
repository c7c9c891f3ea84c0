"""Storage nodes: every version of the rows and index entries of their key ranges, read as of a timestamp.

``node``: one node on RocksDB. ``router``: several nodes behind one reader, and who owns which key. ``range_map``: the
versioned map from key ranges to nodes. ``predicates`` and ``aggregates``: what runs beside the data. ``garbage``:
which versions nobody can read any more.
"""
