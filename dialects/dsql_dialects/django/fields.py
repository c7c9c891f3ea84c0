"""Keys of another kind than the default, an identity column."""

from __future__ import annotations

import uuid
from typing import Any

from django.db.models import AutoField, Field, UUIDField
from django.utils.functional import cached_property


class UUIDAutoField(AutoField):
    """A primary key of random UUIDs: no counter that all writers share, and nothing to guess.

    ``DEFAULT_AUTO_FIELD = "dsql_dialects.django.fields.UUIDAutoField"``, or ``default_auto_field`` of one app. Django
    draws the value; the column has a default besides, for rows that others insert. It works on other databases, too.
    """

    description = "Random UUID"
    default_error_messages = UUIDField.default_error_messages
    empty_strings_allowed = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("default", uuid.uuid4)
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> tuple[str, str, list[Any], dict[str, Any]]:
        """Without the default, unless it is another one."""
        name, path, args, kwargs = super().deconstruct()
        if kwargs.get("default") is uuid.uuid4:
            del kwargs["default"]
        return name, path, args, kwargs

    def get_internal_type(self) -> str:
        """It is stored as a UUIDField's values are."""
        return "UUIDField"

    def db_type_suffix(self, connection: Any) -> str | None:
        """The column's default, where the database has the function for it."""
        return "DEFAULT gen_random_uuid()" if connection.vendor == "postgresql" else None

    def rel_db_type(self, connection: Any) -> str | None:
        """Foreign keys have the same type."""
        type_: str | None = self.db_type(connection)
        return type_

    @cached_property
    def validators(self) -> list[Any]:
        """None of an integer's."""
        return list(self._validators)

    def to_python(self, value: Any) -> uuid.UUID | None:
        """A UUID from its text or its number.

        :raises ValidationError: if it is none.
        """
        result: uuid.UUID | None = UUIDField.to_python(self, value)
        return result

    def get_prep_value(self, value: Any) -> uuid.UUID | None:
        """As :meth:`to_python`."""
        return self.to_python(Field.get_prep_value(self, value))

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        """As UUIDField's."""
        return UUIDField.get_db_prep_value(self, value, connection, prepared)
