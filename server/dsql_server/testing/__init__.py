"""For tests: a DSQL cluster on this machine for as long as a ``with`` block or a pytest session lasts."""

from dsql_server.testing.local_cluster import ClusterError, LocalCluster

__all__ = ["ClusterError", "LocalCluster"]
