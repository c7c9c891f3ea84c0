"""System checks: which models and fields Aurora DSQL can't hold, before a migration finds out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.apps import apps
from django.core import checks
from django.db import router
from django.db.backends.base.validation import BaseDatabaseValidation
from django.db.models import Index, UniqueConstraint
from django.db.models.constraints import CheckConstraint

#: Columns a table, columns a key, and indexes a table, the primary key's included.
COLUMNS_MAX, KEY_COLUMNS_MAX, INDEXES_MAX = 255, 8, 24

#: The longest declared character types: in general, and in a key, in characters.
VARCHAR_LENGTH_MAX, KEY_VARCHAR_LENGTH_MAX = 65535, 2000

NUMERIC_PRECISION_MAX = 1000

#: What PostgreSQL can store and DSQL can't; each with what to use instead.
REFUSED_TYPES = (
    (re.compile(r"\[\d*\]$"), "arrays", "a JSONField, or a table of its own for the elements"),
    (re.compile(r"^hstore"), "hstore", "a JSONField"),
    (re.compile(r"^citext"), "citext", "a CharField or TextField with a unique constraint or index on Lower()"),
    (re.compile(r"range$"), "ranges", "two fields, for the lower and the upper bound"),
    (re.compile(r"^ts(vector|query)"), "text search types", "a search service"),
    (re.compile(r"^(small|big)?serial"), "serial", "AutoField or BigAutoField, which are identities here"),
    (re.compile(r"^(geometry|geography|raster)"), "PostGIS types", "two FloatFields, or a TextField of GeoJSON"),
    (re.compile(r"^(inet|cidr|macaddr)"), "network address types", "GenericIPAddressField, which is text here"),
    (re.compile(r"^(money|xml|bit|varbit|pg_lsn)\b"), "this type", "DecimalField, TextField or BinaryField"),
)

#: Types without an order that DSQL can keep a key in.
KEYLESS_TYPES = ("json", "jsonb", "bytea", "interval", "time with time zone")

_VARCHAR = re.compile(r"^(?:varchar|character varying)\((\d+)\)")
_NUMERIC = re.compile(r"^numeric\((\d+)")


class DatabaseValidation(BaseDatabaseValidation):
    """Checks of ``manage.py check --database`` and ``migrate``."""

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        """What is wrong with models as a whole: keys, indexes, sizes."""
        messages: list[checks.CheckMessage] = list(super().check(**kwargs))
        for model in apps.get_models(include_auto_created=True):
            options = model._meta
            if options.managed and not options.proxy and router.allow_migrate_model(self.connection.alias, model):
                messages.extend(self._check_model(model))
        return messages

    def check_field_type(self, field: Any, field_type: str) -> list[checks.CheckMessage]:
        """What is wrong with a field's type."""
        for pattern, name, instead in REFUSED_TYPES:
            if pattern.search(field_type):
                return [_error("E001", f"Aurora DSQL doesn't store {name} ({field_type}).", f"Use {instead}.", field)]
        varchar, numeric = _VARCHAR.match(field_type), _NUMERIC.match(field_type)
        if varchar and int(varchar[1]) > VARCHAR_LENGTH_MAX:
            text = f"max_length is {varchar[1]}; Aurora DSQL takes {VARCHAR_LENGTH_MAX} at most."
            return [_error("E002", text, "Use a TextField, which holds 1 MiB.", field)]
        if numeric and int(numeric[1]) > NUMERIC_PRECISION_MAX:
            text = f"max_digits is {numeric[1]}; Aurora DSQL takes {NUMERIC_PRECISION_MAX} at most."
            return [_error("E002", text, "Lower max_digits.", field)]
        return []

    def _check_model(self, model: Any) -> Iterator[checks.CheckMessage]:
        columns = [field for field in model._meta.local_concrete_fields if field.db_type(self.connection)]
        if len(columns) > COLUMNS_MAX:
            text = f"The model has {len(columns)} columns; a table of Aurora DSQL has {COLUMNS_MAX} at most."
            yield _error("E003", text, "Move fields to a model with a OneToOneField to this one.", model)
        keys = list(self._keys(model))
        if len(keys) > INDEXES_MAX:
            text = f"The model has {len(keys)} indexes; a table of Aurora DSQL has {INDEXES_MAX} at most."
            yield _error("E004", text, "Remove indexes: primary key and unique fields have one, too.", model)
        for name, fields, owner in keys:
            yield from self._check_key(name, fields, owner)
        for constraint in model._meta.constraints:
            yield from self._check_constraint(model, constraint)
        for index in model._meta.indexes:
            yield from self._check_index(model, index)

    def _keys(self, model: Any) -> Iterator[tuple[str, Sequence[Any], Any]]:
        """Every key with its name, its fields, and the field or model that it is to be reported for."""
        for field in model._meta.local_concrete_fields:
            if field.primary_key:
                yield "the primary key", [field], field
            elif field.unique:
                yield "unique=True", [field], field
            elif field.db_index:
                yield "db_index=True", [field], field
        together = [("unique_together", names) for names in model._meta.unique_together]
        together += [("index_together", names) for names in getattr(model._meta, "index_together", ())]
        together += [(f"index {index.name}", index.fields) for index in model._meta.indexes]
        together += [
            (f"constraint {constraint.name}", constraint.fields)
            for constraint in model._meta.constraints
            if isinstance(constraint, UniqueConstraint)
        ]
        composite = getattr(model._meta, "pk_fields", ())
        if len(composite) > 1:
            yield "the primary key", composite, model
        for name, names in together:
            yield name, self._fields(model, names), model

    def _fields(self, model: Any, names: Iterable[str]) -> list[Any]:
        return [model._meta.get_field(name.lstrip("-")) for name in names]

    def _check_key(self, name: str, fields: Sequence[Any], owner: Any) -> Iterator[checks.CheckMessage]:
        if len(fields) > KEY_COLUMNS_MAX:
            text = f"Of {name}: {len(fields)} fields; a key of Aurora DSQL has {KEY_COLUMNS_MAX} at most."
            yield _error("E005", text, "Use fewer fields.", owner)
        for field in fields:
            type_ = field.db_type(self.connection)
            if type_ in KEYLESS_TYPES:
                text = f"Field '{field.name}' is of type {type_}, which Aurora DSQL doesn't take in a key: {name}."
                yield _error("E006", text, "Index an expression of it that is text or a number, or remove it.", owner)
            varchar = _VARCHAR.match(type_ or "")
            if varchar and int(varchar[1]) > KEY_VARCHAR_LENGTH_MAX:
                text = (
                    f"Field '{field.name}' has max_length={varchar[1]}; Aurora DSQL takes "
                    f"{KEY_VARCHAR_LENGTH_MAX} at most in a key: {name}."
                )
                yield _error("E007", text, "Lower max_length, or index a hash of it.", owner)

    def _check_constraint(self, model: Any, constraint: Any) -> Iterator[checks.CheckMessage]:
        if not isinstance(constraint, (UniqueConstraint, CheckConstraint)):
            text = f"Constraint '{constraint.name}' is of a kind that Aurora DSQL hasn't got: {_kind(constraint)}."
            yield _error("E008", text, "Use UniqueConstraint or CheckConstraint, or check it in a transaction.", model)
        elif getattr(constraint, "opclasses", ()):
            yield self._operator_classes(model, f"Constraint '{constraint.name}'")

    def _check_index(self, model: Any, index: Any) -> Iterator[checks.CheckMessage]:
        if index.suffix != Index.suffix:
            text = f"Index '{index.name}' is of a kind that Aurora DSQL hasn't got: {_kind(index)}."
            yield _error("E008", text, "Use models.Index.", model)
        elif index.opclasses:
            yield self._operator_classes(model, f"Index '{index.name}'")
        elif len(index.fields_orders) > 1 and any(order for _, order in index.fields_orders):
            text = f"Index '{index.name}' is in descending order by some field; Aurora DSQL keeps keys ascending."
            hint = "It is made in ascending order, which serves queries that go through it in one direction."
            yield checks.Warning(text, hint=hint, obj=model, id="dsql.W001")

    def _operator_classes(self, model: Any, what: str) -> checks.CheckMessage:
        text = f"{what} names operator classes; Aurora DSQL hasn't got any."
        return _error("E009", text, "Remove opclasses: in the C collation every index serves LIKE.", model)


def _kind(thing: Any) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def _error(number: str, text: str, hint: str, owner: Any) -> checks.CheckMessage:
    return checks.Error(text, hint=hint, obj=owner, id=f"dsql.{number}")
