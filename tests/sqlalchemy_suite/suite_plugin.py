"""SQLAlchemy's pytest plugin, for ``pytest -p suite_plugin``."""

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: F403
