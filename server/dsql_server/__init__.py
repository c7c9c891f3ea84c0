"""A DSQL-compatible server: every role of Aurora DSQL's commit path, on one machine."""
