"""Pizza orders on Aurora DSQL: a schema, three operations, and nothing else."""
