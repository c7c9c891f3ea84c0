"""Pizza orders with SQLAlchemy's ORM on Aurora DSQL, synchronous and asynchronous."""
