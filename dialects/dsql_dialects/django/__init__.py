"""Django on Aurora DSQL: ``ENGINE = "dsql_dialects.django"``.

``config("aws-dsql://…")`` makes an entry of ``DATABASES`` out of a URL.
"""

from dsql_dialects.django.configuration import config

__all__ = ["config"]
