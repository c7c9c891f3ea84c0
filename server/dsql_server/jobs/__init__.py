"""Background jobs of the cluster: building indexes from storage."""
