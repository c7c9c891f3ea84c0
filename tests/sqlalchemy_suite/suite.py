"""All of SQLAlchemy's compliance suite."""

from sqlalchemy.testing.suite import *  # noqa: F403
