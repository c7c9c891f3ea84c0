"""SQLAlchemy and Django for Aurora DSQL."""
