"""System checks name the models and fields that DSQL can't hold."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.postgres.fields import ArrayField, DateRangeField, HStoreField
from django.contrib.postgres.indexes import GinIndex
from django.db import connections, models
from django.test.utils import isolate_apps

from dsql_dialects.django.fields import UUIDAutoField


def found(model: Any) -> dict[str, str]:
    """Identifiers of what the checks say of a model and its fields, each with its text."""
    validation = connections["default"].validation
    messages = list(validation._check_model(model))
    for field in model._meta.local_fields:
        messages += validation.check_field(field)
    assert all(message.hint and message.obj is not None for message in messages)
    return {str(message.id): str(message.msg) for message in messages}


@pytest.mark.parametrize(
    ("field", "identifier"),
    [
        (ArrayField(models.IntegerField()), "dsql.E001"),
        (HStoreField(), "dsql.E001"),
        (DateRangeField(), "dsql.E001"),
        (models.CharField(max_length=65536), "dsql.E002"),
        (models.DecimalField(max_digits=1001, decimal_places=2), "dsql.E002"),
        (models.JSONField(unique=True), "dsql.E006"),
        (models.BinaryField(db_index=True), "dsql.E006"),
        (models.DurationField(unique=True), "dsql.E006"),
        (models.CharField(max_length=2001, db_index=True), "dsql.E007"),
    ],
)
@isolate_apps("django.contrib.contenttypes")
def test_fields(field: Any, identifier: str) -> None:
    model = type("M", (models.Model,), {"__module__": __name__, "f": field, "Meta": _meta()})
    assert list(found(model)) == [identifier]


@isolate_apps("django.contrib.contenttypes")
def test_keys_and_indexes() -> None:
    names = [f"f{number}" for number in range(9)]
    fields = {name: models.IntegerField() for name in names}
    too_wide = models.Index(fields=names, name="wide")
    assert "wide" in found(_model("A", fields, indexes=[too_wide]))["dsql.E005"]
    many = [models.Index(fields=["f0"], name=f"i{number}") for number in range(24)]
    assert list(found(_model("B", fields, indexes=many))) == ["dsql.E004"]
    assert "dsql.E004" not in found(_model("C", fields, indexes=many[:-1]))
    gin = GinIndex(fields=["f0"], name="gin")
    assert "GinIndex" in found(_model("D", fields, indexes=[gin]))["dsql.E008"]
    classes = models.Index(fields=["f0"], name="i", opclasses=["int4_ops"])
    assert list(found(_model("E", fields, indexes=[classes]))) == ["dsql.E009"]
    mixed = models.Index(fields=["f0", "-f1"], name="i")
    assert list(found(_model("F", fields, indexes=[mixed]))) == ["dsql.W001"]


@isolate_apps("django.contrib.contenttypes")
def test_too_many_columns() -> None:
    fields = {f"f{number}": models.IntegerField() for number in range(255)}
    assert list(found(_model("A", fields))) == ["dsql.E003"]


@isolate_apps("django.contrib.contenttypes")
def test_ordinary_models_are_fine() -> None:
    fields: dict[str, models.Field] = {
        "id": UUIDAutoField(primary_key=True),
        "name": models.CharField(max_length=2000, unique=True),
        "data": models.JSONField(),
        "took": models.DurationField(),
        "address": models.GenericIPAddressField(),
        "size": models.PositiveSmallIntegerField(db_index=True),
    }
    assert found(_model("A", fields, indexes=[models.Index(fields=["-size"], name="i")])) == {}


def test_installed_models_are_checked() -> None:
    assert connections["default"].validation.check() == []


def _meta(**options: Any) -> type:
    return type("Meta", (), {"app_label": "contenttypes", **options})


def _model(name: str, fields: dict[str, Any], **options: Any) -> Any:
    clones = {field_name: field.clone() for field_name, field in fields.items()}
    return type(name, (models.Model,), {"__module__": __name__, **clones, "Meta": _meta(**options)})
